"""Experts for tests/helpers/point_env.py, named on the command line like a user's own."""

import os
import signal
from typing import Any

import numpy as np

from tests.helpers.point_env import STEP


class Walker:
    """Expert that walks straight to the target and records the seeds of its resets."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.seeds: list[int] = []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def __call__(self, observation: Any) -> Any:
        state = observation["arm"]["state"] if isinstance(observation, dict) else observation
        return state[2:] - state[:2]  # more than a step can do


class Sometimes(Walker):
    """Expert that fails in episodes with an odd seed, because it does not move."""

    def __call__(self, observation: Any) -> Any:
        return super().__call__(observation) * (self.seeds[-1] % 2 == 0)


class Kills(Walker):
    """Expert that kills its process in the third episode."""

    def __call__(self, observation: Any) -> Any:
        if self.seeds[-1] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(observation)


class Interrupts(Walker):
    """Expert that sends its process a Ctrl-C in the third episode."""

    presses = 1

    def reset(self, seed: int) -> None:
        super().reset(seed)
        if seed == 2:
            for _ in range(self.presses):
                os.kill(os.getpid(), signal.SIGINT)


class InterruptsTwice(Interrupts):
    """Expert that sends its process two Ctrl-C in the third episode."""

    presses = 2


def stands_still(env: Any) -> Any:
    return lambda observation: np.zeros(2)


def answers_three(env: Any) -> Any:
    return lambda observation: np.zeros(3)


def gets_lost(env: Any) -> Any:
    return lambda observation: np.full(2, np.nan)


def no_expert(env: Any) -> Any:
    return STEP


not_callable = STEP
