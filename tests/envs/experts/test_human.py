import gymnasium as gym
import numpy as np
import pytest

from actionprior.envs import ENV_IDS, EVALUATION_SEED
from actionprior.envs.experts import TabletopExpert
from actionprior.errors import UserError
from bench.experts import run_episode

pytestmark = pytest.mark.slow  # whole episodes in the simulator


def speeds(env, human, seed):
    """Measure the tip's speed [m/s] after each step until the object is grasped."""
    expert = TabletopExpert(env, human=human)
    env.reset(seed=seed)
    expert.reset(seed)
    tips = [env.snapshot().tip]
    while env.snapshot().held is None and len(tips) < 80:
        env.step(expert())
        tips.append(env.snapshot().tip)
    return np.linalg.norm(np.diff(tips, axis=0), axis=1) * env.control_hz


def test_flaws_repeat_with_the_seed_and_grow_with_the_level():
    env = gym.make("actionprior/PandaLift-v0", images=False).unwrapped
    perfect, slight, full = (speeds(env, human, 5) for human in (0.0, 0.3, 1.0))
    np.testing.assert_array_equal(full, speeds(env, 1.0, 5))
    assert len(full) > len(perfect)
    pairs = [(perfect, slight), (perfect, full)]
    changes = [np.abs(a[:8] - b[:8]).mean() for a, b in pairs]
    assert 0 < changes[0] < changes[1]


def test_human_like_experts_pause_before_a_grasp():
    env = gym.make("actionprior/PandaLift-v0", images=False).unwrapped
    # Count steps in which the tip hardly moves, between its start and the grasp.
    slow = {
        human: [int((speeds(env, human, seed)[3:-2] < 0.05).sum()) for seed in range(10)]
        for human in (0.0, 1.0)
    }
    assert np.median(slow[1.0]) >= np.median(slow[0.0]) + 2


@pytest.mark.parametrize(
    "env_id",
    [i for i in ENV_IDS if "Sort" not in i and "XArm6" not in i]
    + [pytest.param(i, marks=pytest.mark.slow) for i in ENV_IDS if "Sort" in i],
)
def test_experts_succeed_with_human_like_flaws(env_id):
    env = gym.make(env_id, images=False).unwrapped
    expert = TabletopExpert(env, human=1.0)
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + 8)
    assert sum(run_episode(env, expert, seed).success for seed in seeds) >= 7
    env.close()


@pytest.mark.parametrize("human", [-0.1, 1.5])
def test_a_level_of_flaws_out_of_range_raises(human):
    env = gym.make("actionprior/PandaLift-v0", images=False)
    with pytest.raises(UserError, match=r"it must be 0 .* to 1"):
        TabletopExpert(env, human=human)
