"""Flaws of human demonstrations: pauses, tremor and a varying speed.

All are drawn from the episode's seed. The expert still reads the true state at every step, so it
corrects the errors that they cause.
"""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.experts.plan import Aim
from actionprior.errors import UserError

_PACE = (-0.05, 0.30)
"""Range of the logarithm of an episode's pace, a factor on the speed."""
_SPEED_SPREAD = 0.2
"""Standard deviation of the logarithm of the speed within an episode."""
_SPEED_SECONDS = 1.0
"""Correlation time of the speed [s]."""
_TREMOR = (0.004, 0.10)
"""Standard deviation of the tremor's velocity: a constant [m/s] and a share of the speed."""
_TREMOR_SECONDS = 0.15
"""Correlation time of the tremor [s]."""
_PAUSE_SECONDS = (0.3, 0.6)
"""Shortest and longest pause before a grasp [s]. A pause has the probability ``level``."""
_HESITATION_RATE = 0.08
"""Rate of pauses at any other time [1/s]."""


def check_human(human: float) -> float:
    """Check that a level of flaws is within 0 to 1, and return it.

    Raises:
        UserError: ``human`` is not between 0 and 1.
    """
    if not 0.0 <= human <= 1.0:
        raise UserError(f"human is {human}; it must be 0 (no flaws) to 1 (all flaws of a person)")
    return human


class HumanFlaws:
    """Flaws of a human demonstrator in one episode.

    Args:
        rng: The only source of randomness.
        level: Strength of the flaws, above 0 and up to 1.
        hz: Control rate [Hz].
    """

    def __init__(self, rng: np.random.Generator, level: float, hz: float) -> None:
        self._rng, self._level, self._dt = rng, level, 1.0 / hz
        self._pace = math.exp(level * rng.uniform(*_PACE))
        self._log_speed: Array = rng.normal(size=1)
        self._tremor: Array = np.zeros(3)
        self._suction = False
        self._pause_drawn = False  # True once the pause before the next grasp was drawn
        self._pause_left = 0.0
        self._pause_tip: Array = np.zeros(3)

    def adjust(self, aim: Aim, tip: Array) -> Aim:
        """Return an aim with pauses and a varying speed.

        Args:
            aim: The expert's aim.
            tip: (3,) current target of the tip [m, table].
        """
        if self._pause_left <= 0.0 and self._stops(aim.suction):
            self._pause_left = self._level * self._rng.uniform(*_PAUSE_SECONDS)
            self._pause_tip = tip
        if self._pause_left > 0.0:
            self._pause_left -= self._dt
            # The suction does not change during a pause, so nothing is dropped or grasped.
            aim = Aim(self._pause_tip, self._suction, aim.speed)
        elif self._suction and not aim.suction:
            self._suction = self._pause_drawn = False
        else:
            self._suction = aim.suction
        self._log_speed = _random_walk(self._rng, self._log_speed, self._dt / _SPEED_SECONDS)
        speed = self._pace * math.exp(self._level * _SPEED_SPREAD * self._log_speed[0])
        return aim._replace(speed=aim.speed * speed)

    def tremor(self, step: Array) -> Array:
        """Compute the displacement (3,) [m] to add to a ``step`` (3,) [m] of the tip's target."""
        self._tremor = _random_walk(self._rng, self._tremor, self._dt / _TREMOR_SECONDS)
        at_rest, share = _TREMOR
        size = at_rest * self._dt + share * float(np.sqrt(step @ step))
        return np.asarray(self._level * size * self._tremor)

    def _stops(self, suction: bool) -> bool:
        chance = self._level * _HESITATION_RATE * self._dt
        if suction and not self._suction and not self._pause_drawn:
            self._pause_drawn = True
            chance = self._level
        return bool(self._rng.random() < chance)


def _random_walk(rng: np.random.Generator, value: Array, share: float) -> Array:
    """Advance a mean-reverting random walk of mean 0 and variance 1 by one step.

    Args:
        rng: The only source of randomness.
        value: Current value.
        share: Length of the step as a share of the correlation time.
    """
    keep = math.exp(-share)
    return np.asarray(keep * value + math.sqrt(1.0 - keep * keep) * rng.normal(size=value.shape))
