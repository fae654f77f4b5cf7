"""Test gym-aloha with the bounds of its joints."""

import gymnasium as gym
import numpy as np
import pytest

from actionprior.benchmarks.optional_import import BenchmarkError
from tests.helpers.environments import needs

pytestmark = [needs("gym_aloha", "aloha"), pytest.mark.slow]


def test_the_arms_can_keep_their_initial_pose():
    env = gym.make("aloha/transfer_cube", disable_env_checker=True)
    observation, info = env.reset(seed=0)
    start = observation["state"]
    assert env.observation_space.contains(observation)
    assert env.action_space.contains(start)
    assert np.abs(start).max() > 1  # outside of the package's own bounds
    observation, _, terminated, _, after = env.step(start)
    np.testing.assert_allclose(observation["state"], start, atol=0.05)
    assert not terminated
    assert not after["success"]
    assert info["instruction"].startswith("pick up the cube")


def test_unknown_names_are_rejected():
    with pytest.raises(BenchmarkError, match="no task 'juggle'"):
        gym.make("aloha/insertion", task="juggle")
