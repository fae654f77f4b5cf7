"""Where the tools' tips go in an episode, in table coordinates.

Axes: G arms of a robot, T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from actionprior.embodiment import FloatArray
from actionprior.envs.arms.arm import base_rotation
from actionprior.envs.arms.kinematics import Array
from actionprior.envs.arms.robots import Robot, Station
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert


class TipPath(NamedTuple):
    """One episode.

    Attributes:
        tip_GT3: (G, T, 3) each arm's tip [m].
        success: whether the episode succeeded.
    """

    tip_GT3: Array
    success: bool


def table_tips(robot: Robot | Station, state_Ts: FloatArray) -> Array:
    """Tips (G, T, 3) [m] of observed states (T, n_s), which hold them in the arms' base frames."""
    tips, first = [], 0
    for arm in robot.arms:
        in_base_T3 = state_Ts[:, first : first + 3].astype(np.float64)
        tips.append(in_base_T3 @ base_rotation(arm).T + np.array(arm.base))
        first += len(arm.state_features)
    return np.stack(tips)


def expert_path(env: TabletopEnv, seed: int) -> TipPath:
    """Let the scripted expert play the episode of a reset seed, up to success or the step limit.

    Raises:
        UserError: the task has no expert.
    """
    expert = TabletopExpert(env)
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    states, success = [observation["state"]], False
    while not success and len(states) <= env.step_limit:
        observation, _, success, _, _ = env.step(expert())
        states.append(observation["state"])
    return TipPath(table_tips(env.robot, np.stack(states)), success)
