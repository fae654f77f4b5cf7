"""Random pushes while an expert demonstrates, so that recordings show the way back."""

import numpy as np

from actionprior.embodiment import FloatArray

PUSH_STEPS = 10
"""Steps for which a push lasts."""
PUSH_EVERY = 40
"""Mean number of steps from the begin of one push to that of the next."""


class Pushes:
    """Pushes of one episode, drawn from its seed.

    Args:
        size: Largest push along each axis (N,), in any unit per step; None: no pushes.
        seed: Seed of the episode.
        steps: Steps for which a push lasts.
        every: Mean number of steps from the begin of one push to that of the next.
    """

    def __init__(
        self, size: FloatArray | None, seed: int, steps: int = PUSH_STEPS, every: int = PUSH_EVERY
    ) -> None:
        self._size, self._steps, self._chance = size, steps, 1 / (every - steps)
        self._left = 0
        # A stream of its own, so that pushes do not change what noise draws.
        self._rng = np.random.default_rng([seed, 1])

    def next(self) -> FloatArray | None:
        """Return the push (N,) of the next step, or None if there is none."""
        if self._size is None:
            return None
        if self._left == 0:
            if self._rng.random() >= self._chance:
                return None
            self._left = self._steps
            drawn = self._rng.uniform(-1, 1, len(self._size)).astype(np.float32)
            self._current: FloatArray = self._size * drawn
        self._left -= 1
        return self._current
