"""Paths of the tips agree with the simulator's own."""

import gymnasium
import numpy as np
import pytest

pytest.importorskip("pybullet")

import actionprior.envs  # noqa: F401  registers them
from actionprior.study.tip_paths import expert_path, table_tips


@pytest.mark.parametrize("env_id", ["actionprior/KukaPlace-v0", "actionprior/DuoHandover-v0"])
def test_states_give_the_tips_where_the_simulator_has_them(env_id: str) -> None:
    env = gymnasium.make(env_id, images=False).unwrapped
    observation, _ = env.reset(seed=3)
    tips = table_tips(env.robot, observation["state"][None])
    assert tips.shape == (len(env.robot.arms), 1, 3)
    for tip, hand in zip(tips[:, 0], env.snapshot().hands, strict=True):
        np.testing.assert_allclose(tip, hand.tip, atol=1e-5)
    env.close()


def test_the_expert_goes_from_its_start_to_the_pad() -> None:
    env = gymnasium.make("actionprior/PandaPlace-v0", images=False).unwrapped
    path = expert_path(env, 5)
    assert path.success
    arms, steps, _ = path.tip_GT3.shape
    assert arms == 1
    assert 10 < steps <= env.step_limit + 1
    pad = env.scene.goal_pad
    assert np.hypot(*(path.tip_GT3[0, -1, :2] - (pad.x, pad.y))) < 0.05
    observation, _ = env.reset(seed=5)
    start = table_tips(env.robot, observation["state"][None])[0, 0]
    np.testing.assert_allclose(path.tip_GT3[0, 0], start, atol=1e-6)
    env.close()
