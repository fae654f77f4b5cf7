"""Paths of the tools' tips in an episode, in table coordinates.

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
    """Path of one episode.

    Attributes:
        tip_GT3: Tip of each arm (G, T, 3) [m].
        success: True if the episode succeeded.
    """

    tip_GT3: Array
    success: bool


def table_tips(robot: Robot | Station, state_Ts: FloatArray) -> Array:
    """Convert tips in observed states (T, n_s), in base frames, to the table's (G, T, 3) [m]."""
    tips, first = [], 0
    for arm in robot.arms:
        in_base_T3 = state_Ts[:, first : first + 3].astype(np.float64)
        tips.append(in_base_T3 @ base_rotation(arm).T + np.array(arm.base))
        first += len(arm.state_features)
    return np.stack(tips)


def expert_path(env: TabletopEnv, seed: int) -> TipPath:
    """Run the scripted expert on the scene of a seed, until success or the step limit.

    Raises:
        UserError: The task has no expert.
    """
    expert = TabletopExpert(env)
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    states, success = [observation["state"]], False
    while not success and len(states) <= env.step_limit:
        observation, _, success, _, _ = env.step(expert())
        states.append(observation["state"])
    return TipPath(table_tips(env.robot, np.stack(states)), success)
