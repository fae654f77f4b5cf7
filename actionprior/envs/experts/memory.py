"""Plans of the tasks that need memory."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.experts.plan import Aim, Plan, funnel, retreat
from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks import Snapshot
from actionprior.envs.tasks.memory import return_spot, touched

_AT_SPOT = 0.012
"""Distance from the spot at which the expert has returned [m]."""
_DWELL_SECONDS = 0.3
"""Time to wait at the spot [s]."""
_RISE = 0.03
"""Height above a touched object that the tip must reach before it moves sideways [m]."""


class OnceEachPlan(Plan):
    """Touch the nearest object, rise to the spot, wait, touch the other object, and retreat."""

    def __init__(self) -> None:
        self._touched: list[int] = []
        self._at_spot: float | None = None
        self._next = -1

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        index = touched(scene, now)
        if index is not None and index not in self._touched:
            self._touched.append(index)
        left = [i for i in scene.order if i not in self._touched]
        if not left:
            return retreat(now)
        if self._touched and not self._returned(scene, now):
            last = self._touched[-1]
            top = now.positions[last, 2] + scene.things[last].height / 2
            if now.tip[2] < top + _RISE:
                return Aim(np.array([now.tip[0], now.tip[1], top + 2 * _RISE]))
            return Aim(return_spot(scene))
        if self._next not in left:  # chosen once, because the nearest object may change on the way
            self._next = min(left, key=lambda i: math.dist(now.positions[i], now.tip))
        x, y, z = now.positions[self._next]
        return Aim(funnel(now.tip, (x, y, z + scene.things[self._next].height / 2)))

    def _returned(self, scene: Scene, now: Snapshot) -> bool:
        """Check that the tip reached the spot and had time to come to rest there."""
        near = math.dist(now.tip, return_spot(scene)) < _AT_SPOT
        if self._at_spot is None and near:
            self._at_spot = now.time
        return self._at_spot is not None and now.time - self._at_spot >= _DWELL_SECONDS
