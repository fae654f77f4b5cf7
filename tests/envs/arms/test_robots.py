import dataclasses

import numpy as np
import pytest

from actionprior.envs.arms.arm import ControlledArm
from actionprior.envs.arms.robots import (
    CONTROL_MODES,
    DUO,
    KUKA,
    PANDA,
    ROBOTS,
    UR5E,
    XARM6,
    DHRow,
    Station,
    find_robot,
)
from actionprior.envs.arms.urdf import light_urdf, load_chain
from actionprior.errors import UserError


def test_features_of_the_default_modes():
    panda = [feature.name for feature in PANDA.action_features()]
    assert panda == [f"joint_{i}_delta" for i in range(1, 8)] + ["gripper"]
    kuka = [feature.name for feature in KUKA.action_features()]
    assert kuka == [f"joint_{i}" for i in range(1, 8)] + ["gripper"]
    xarm = [feature.name for feature in XARM6.action_features()]
    assert xarm == ["dx", "dy", "dz", "drx", "dry", "drz", "gripper"]
    state = [feature.name for feature in XARM6.state_features]
    assert state == ["ee_x", "ee_y", "ee_z", *(f"joint_{i}" for i in range(1, 7)), "gripper"]


@pytest.mark.parametrize("robot", ROBOTS.values())
@pytest.mark.parametrize("mode", CONTROL_MODES)
def test_every_feature_has_a_known_unit(robot, mode):
    features = (*robot.state_features, *robot.action_features(mode))
    assert {feature.unit for feature in features} <= {"m", "rad", "1"}


@pytest.mark.parametrize("robot", ROBOTS.values())
def test_home_is_within_the_limits_and_points_the_tool_down(robot):
    chain, home = load_chain(robot), np.array(robot.home)
    assert (chain.lower < home).all()
    assert (home < chain.upper).all()
    pose = chain.forward(home)
    assert pose.rotation[2, 2] < -0.99
    tip = ControlledArm(robot, robot.control_mode).tip(home).position
    np.testing.assert_allclose(tip, (-0.02, 0.0, 0.25), atol=0.02)


@pytest.mark.parametrize("robot", ROBOTS.values())
def test_the_light_urdf_has_the_robots_joints_and_only_its_tool_collides(robot):
    text = light_urdf(robot)
    assert text.count("type='revolute'") == robot.dof
    jaws = robot.gripper == "jaws"
    assert text.count("<collision>") == (3 if jaws else 1)
    assert text.count("type='prismatic'") == (2 if jaws else 0)


def test_a_station_has_its_arms_features_with_prefixes():
    state = [feature.name for feature in DUO.state_features]
    assert state[:4] == ["left_ee_x", "left_ee_y", "left_ee_z", "left_joint_1"]
    assert state[10] == "right_ee_x"
    assert state[9::10] == ["left_gripper", "right_gripper"]
    assert len(DUO.action_features()) == 14
    assert len(DUO.action_features("ee_delta")) == 14


def test_units_of_the_grippers_states_differ():
    assert XARM6.state_features[-1].unit == "1"
    assert UR5E.state_features[-1].unit == "m"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_hz": 7}, "control_hz is 7; choose a whole divisor of 120"),
        ({"dh": ()}, "needs either a urdf or dh rows"),
        ({"urdf": "x.urdf"}, "needs either a urdf or dh rows"),
        ({"dh": (DHRow(0.0, 0.1, 0.0),)}, "has dof 6, but 6 home angles and 1 dh rows"),
        ({"home": (0.0,)}, "has dof 6, but 1 home angles"),
    ],
)
def test_robots_that_cannot_be_simulated_raise(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(UR5E, **changes)


def test_arms_of_a_station_must_share_control_mode_and_rate():
    with pytest.raises(UserError, match="must share control mode and rate"):
        Station("mixed", left=PANDA, right=UR5E)


def test_unknown_names_raise_and_list_the_known_ones():
    with pytest.raises(
        UserError, match=r"choose one of \['duo', 'kuka', 'panda', 'ur5e', 'xarm6'\]"
    ):
        find_robot("ur5")
    with pytest.raises(UserError, match="control_mode 'x' is not known"):
        PANDA.action_features("x")  # type: ignore[arg-type]  # wrong on purpose
