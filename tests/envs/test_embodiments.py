import gymnasium as gym
import numpy as np
import pytest

from actionprior.envs.embodiments import suite_embodiment
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.recording import CAMERA_KEY
from actionprior.rollout.compatibility import ObservationMap
from actionprior.rollout.robot_env import RobotEnv


@pytest.mark.parametrize("env_id", ["actionprior/Ur5ePlace-v0", "actionprior/DuoHandover-v0"])
def test_an_expert_succeeds_through_the_unified_vectors(env_id):
    """Check that names, orders, slots and rates of environment and embodiment agree."""
    inner = gym.make(env_id)
    assert isinstance(inner.unwrapped, TabletopEnv)
    robot = suite_embodiment(inner.unwrapped.robot)
    seen = ObservationMap("state", {CAMERA_KEY: "image"})
    env = RobotEnv(inner, env_id, robot, seen)
    observation, _ = env.reset(seed=0)
    expert = TabletopExpert(inner)
    done = False
    while not done:
        order = [inner.unwrapped.action_names.index(name) for name in robot.action_features]
        unified = robot.action_to_unified(expert()[order])
        observation, _, done, truncated, _ = env.step(robot.action_from_unified(unified))
        assert not truncated
    assert observation["images"].shape == (1, 64, 64, 3)
    state = robot.state_to_unified(observation["state"])
    assert np.isfinite(state).all()
    assert robot.state_mask().sum() == len(robot.state_features)
    env.close()


def test_a_stations_arms_have_separate_slots():
    duo = suite_embodiment("duo")
    left = {g.name: (g.slot, g.offset) for g in duo.state if g.name.startswith("left")}
    right = {g.name: (g.slot, g.offset) for g in duo.state if g.name.startswith("right")}
    assert left == {
        "left_tip": ("end_effector", 0),
        "left_joints": ("body", 0),
        "left_gripper": ("body", 6),
    }
    assert right == {
        "right_tip": ("end_effector", 3),
        "right_joints": ("body", 7),
        "right_gripper": ("body", 13),
    }
    assert {g.slot for g in duo.action} == {"left_arm", "right_arm"}
    assert duo.control_hz == 15
