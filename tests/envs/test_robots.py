import numpy as np
import pytest

from actionprior.envs.robots import CONTROL_MODES, KUKA, PANDA, ROBOTS, XARM6, find_robot
from actionprior.envs.urdf import light_urdf, load_chain
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
def test_home_is_inside_the_limits_with_the_tool_down(robot):
    chain, home = load_chain(robot), np.array(robot.home)
    assert (chain.lower < home).all()
    assert (home < chain.upper).all()
    pose = chain.forward(home)
    assert pose.rotation[2, 2] < -0.99
    np.testing.assert_allclose(pose.position + robot.base, (-0.02, 0.0, 0.25), atol=0.02)


@pytest.mark.parametrize("robot", ROBOTS.values())
def test_the_light_urdf_has_the_robots_joints_and_one_colliding_link(robot):
    text = light_urdf(robot)
    assert text.count("type='revolute'") == robot.dof
    assert text.count("<collision>") == 1


def test_unknown_names_are_told():
    with pytest.raises(UserError, match=r"choose one of \['kuka', 'panda', 'xarm6'\]"):
        find_robot("ur5")
    with pytest.raises(UserError, match="control_mode 'x' is not known"):
        PANDA.action_features("x")  # type: ignore[arg-type]
