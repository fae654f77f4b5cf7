"""Test the scripted experts of gym-aloha's two tasks."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from actionprior.benchmarks import ALOHA_IDS
from actionprior.benchmarks.aloha_experts import WaypointExpert
from actionprior.benchmarks.optional_import import BenchmarkError
from tests.helpers.environments import needs

pytestmark = needs("gym_aloha", "aloha")


class Trial(NamedTuple):
    """What an expert did in one episode."""

    rewards: list[float]
    actions: NDArray[np.float32]


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, disable_env_checker=True, images=False, **kwargs)


def demonstrate(env: gym.Env[Any, Any], expert: WaypointExpert, seed: int) -> Trial:
    env.reset(seed=seed)
    expert.reset(seed)
    rewards: list[float] = []
    actions: list[NDArray[np.float32]] = []
    over = False
    while not over:
        actions.append(expert())
        _, reward, terminated, truncated, _ = env.step(actions[-1])
        rewards.append(float(reward))
        over = terminated or truncated
    return Trial(rewards, np.stack(actions))


@pytest.mark.parametrize("env_id", ALOHA_IDS)
def test_experts_succeed(env_id: str) -> None:
    env = make_env(env_id)
    expert = WaypointExpert(env)
    for seed in range(4):
        trial = demonstrate(env, expert, seed)
        assert trial.rewards[-1] == 4
        assert len(trial.rewards) < 400
        assert all(action in env.action_space for action in trial.actions)


def test_the_left_arm_keeps_the_cube_after_the_handover() -> None:
    env = make_env("aloha/transfer_cube", ends=False)
    trial = demonstrate(env, WaypointExpert(env), 5)
    assert len(trial.rewards) == 400
    assert trial.rewards[-1] == 4
    bare: Any = env.unwrapped
    ((x, _, z),) = bare.object_poses[:, :3]
    assert x < -0.05  # drawn back to the left
    assert z > 0.2


def test_an_episode_depends_only_on_its_seed() -> None:
    env = make_env("aloha/insertion")
    expert = WaypointExpert(env)
    one, other, again = (demonstrate(env, expert, seed) for seed in (7, 8, 7))
    np.testing.assert_array_equal(one.actions, again.actions)
    assert len(one.actions) != len(other.actions)  # each seed has its own pace


def test_planning_does_not_move_the_arms() -> None:
    env = make_env("aloha/transfer_cube")
    env.reset(seed=0)
    bare: Any = env.unwrapped
    before = bare.physics.data.qpos.copy()
    expert = WaypointExpert(env)
    expert.reset(0)
    np.testing.assert_array_equal(bare.physics.data.qpos, before)
    # The first action is close to where the arms are.
    np.testing.assert_allclose(expert()[:6], before[:6], atol=0.02)


def test_a_wrong_use_is_rejected() -> None:
    with pytest.raises(BenchmarkError, match="is no task of gym-aloha"):
        WaypointExpert(gym.make("CartPole-v1"))
    env = make_env("aloha/transfer_cube")
    env.reset(seed=0)
    expert = WaypointExpert(env)
    with pytest.raises(BenchmarkError, match="reset the expert after its environment"):
        expert()
    bare: Any = env.unwrapped
    bare.physics.data.qpos[16:18] = 3.0  # the cube is metres away
    with pytest.raises(BenchmarkError, match="the right arm cannot reach"):
        expert.reset(0)
