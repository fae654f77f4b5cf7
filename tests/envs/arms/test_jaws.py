import numpy as np
import pytest

from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.scene.scene import SHAPES


def opening(env, command, steps):
    """Measure the jaws' opening after each step while the arm rests under one command."""
    action = np.append(env.control.target_q, command)
    return [float(env.step(action)[0]["state"][-1]) for _ in range(steps)]


def test_jaws_start_open_and_follow_the_commanded_opening():
    env = TabletopEnv("ur5e", "reach", images=False)
    assert env.reset(seed=0)[0]["state"][-1] == pytest.approx(0.08)
    closing = opening(env, 0.0, 12)
    assert closing[0] > 0.06  # limited speed, no jump
    assert closing[-1] == pytest.approx(0.0, abs=1e-3)
    assert opening(env, 0.5, 12)[-1] == pytest.approx(0.04, abs=1e-3)
    assert opening(env, 1.0, 12)[-1] == pytest.approx(0.08, abs=1e-3)
    env.close()


def test_jaws_hold_an_object_until_commanded_wider_than_it():
    env = TabletopEnv("ur5e", "lift", images=False)
    env.reset(seed=0)
    expert = TabletopExpert(env)
    while not env.step(expert())[2]:
        pass
    held = env.world.held
    assert held == env.scene.target
    width = opening(env, 0.0, 3)[-1]
    radius = SHAPES[env.scene.target_thing.shape].radius
    assert 2 * radius - 0.005 < width < 2 * radius * 1.45
    opening(env, width / 0.08, 5)
    assert env.world.held == held
    opening(env, 1.0, 3)
    assert env.world.held is None
    env.close()


def test_closed_jaws_do_not_hold_an_object_that_they_push():
    env = TabletopEnv("ur5e", "push", images=False)
    expert = TabletopExpert(env)
    env.reset(seed=0)
    done = False
    while not done:
        done = env.step(expert())[2]
        assert env.world.held is None
    env.close()
