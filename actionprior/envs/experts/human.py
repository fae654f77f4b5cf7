"""The flaws of a person's demonstrations: pauses, tremor, a speed that varies.

All are drawn from the episode's seed, and the expert goes on looking at the true state, so it makes
good what they spoil.
"""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.experts.plan import Aim
from actionprior.errors import UserError

_PACE = (-0.05, 0.30)
"""An episode's pace is e to a power from this range."""
_WAVER = 0.2
"""Standard deviation of the logarithm of the speed in the course of an episode."""
_WAVER_SECONDS = 1.0
"""How long the speed stays above or below its mean [s]."""
_TREMOR = (0.004, 0.10)
"""Standard deviation of the tremor's velocity at rest [m/s], and its share of the speed."""
_TREMOR_SECONDS = 0.15
_PAUSE_SECONDS = (0.3, 0.6)
"""How long a pause before a grasp lasts [s]; it is made with a probability of ``level``."""
_HESITATIONS = 0.08
"""How often a demonstrator stops anywhere [1/s]."""


def check_human(human: float) -> float:
    """Give ``human`` back.

    Raises:
        UserError: it is not between 0 and 1.
    """
    if not 0.0 <= human <= 1.0:
        raise UserError(f"human is {human}; it must be 0 (no flaws) to 1 (all of a person's)")
    return human


class Human:
    """The flaws of one episode.

    Args:
        rng: the only source of randomness.
        level: how strong they are, above 0, up to 1.
        hz: control rate [Hz].
    """

    def __init__(self, rng: np.random.Generator, level: float, hz: float) -> None:
        self._rng, self._level, self._dt = rng, level, 1.0 / hz
        self._pace = math.exp(level * rng.uniform(*_PACE))
        self._waver: Array = rng.normal(size=1)
        self._tremor: Array = np.zeros(3)
        self._suction = False
        self._collected = False  # whether the pause before this grasp was drawn
        self._left = 0.0
        self._where: Array = np.zeros(3)

    def bend(self, aim: Aim, tip: Array) -> Aim:
        """What becomes of an aim; ``tip`` (3,) [m, table] is where the held target is."""
        if self._left <= 0.0 and self._stops(aim.suction):
            self._left = self._level * self._rng.uniform(*_PAUSE_SECONDS)
            self._where = tip
        if self._left > 0.0:
            self._left -= self._dt
            # The cup stays as it is: what it holds is not dropped, and nothing is caught yet.
            aim = Aim(self._where, self._suction, aim.speed)
        elif self._suction and not aim.suction:
            self._suction = self._collected = False
        else:
            self._suction = aim.suction
        self._waver = _walk(self._rng, self._waver, self._dt / _WAVER_SECONDS)
        speed = self._pace * math.exp(self._level * _WAVER * self._waver[0])
        return aim._replace(speed=aim.speed * speed)

    def tremor(self, step: Array) -> Array:
        """What to add (3,) [m] to a ``step`` (3,) [m] of the held target."""
        self._tremor = _walk(self._rng, self._tremor, self._dt / _TREMOR_SECONDS)
        at_rest, share = _TREMOR
        size = at_rest * self._dt + share * float(np.sqrt(step @ step))
        return np.asarray(self._level * size * self._tremor)

    def _stops(self, suction: bool) -> bool:
        chance = self._level * _HESITATIONS * self._dt
        if suction and not self._suction and not self._collected:
            self._collected = True
            chance = self._level
        return bool(self._rng.random() < chance)


def _walk(rng: np.random.Generator, value: Array, share: float) -> Array:
    """A step, a ``share`` of the time in which it forgets, of a walk of mean 0, variance 1."""
    keep = math.exp(-share)
    return np.asarray(keep * value + math.sqrt(1.0 - keep * keep) * rng.normal(size=value.shape))
