"""Plans of the tasks of several stages, which place one object after the other."""

from __future__ import annotations

import math
from abc import abstractmethod

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.experts.plan import Aim, PickAndPlace, Plan, retreat
from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks import Snapshot
from actionprior.envs.tasks.long_horizon import is_home

_SPOT = 0.040
"""Distance from the middle of a pad to the places of its two objects, left and right [m]."""
_STACKED = 0.012
"""Largest horizontal distance at which a cube stands well enough on another [m]."""


class _PickAndPlaceAll(Plan):
    """Place objects one after the other, and retry an object that was lost."""

    def __init__(self) -> None:
        self._put: PickAndPlace | None = None
        self._index = -1

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        if self._put is not None and self._put.clear(scene, now):
            self._put = None
        if self._put is None:
            index = self._next(scene, now)
            if index is None:
                return retreat(now)
            self._index = index
            self._put = PickAndPlace(index, within=0.006, slope=5.0, rise=0.085)
        return self._put.aim(scene, now, self._place(scene, now, self._index))

    @abstractmethod
    def _next(self, scene: Scene, now: Snapshot) -> int | None:
        """Return the object to place next, or None when all are where they belong."""

    @abstractmethod
    def _place(self, scene: Scene, now: Snapshot, index: int) -> tuple[float, float, float]:
        """Compute where the middle of the object's bottom belongs [m, table]."""


class StackPlan(_PickAndPlaceAll):
    """Stack from the bottom up."""

    def _next(self, scene: Scene, now: Snapshot) -> int | None:
        for index in scene.order[1:]:
            x, y, floor = self._place(scene, now, index)
            there = now.positions[index]
            bottom = there[2] - scene.things[index].height / 2
            if math.dist(there[:2], (x, y)) > _STACKED or abs(bottom - floor) > 0.01:
                return index
        return None

    def _place(self, scene: Scene, now: Snapshot, index: int) -> tuple[float, float, float]:
        below = scene.order[scene.order.index(index) - 1]
        x, y, z = now.positions[below].tolist()
        return x, y, z + scene.things[below].height / 2


class SortPlan(_PickAndPlaceAll):
    """Bring each object to its pad, starting with the nearest to the tip.

    A policy can see this order in the image, unlike a random one.
    """

    def _next(self, scene: Scene, now: Snapshot) -> int | None:
        left = [i for i in range(len(scene.things)) if not self._lies_home(scene, now, i)]
        return min(left, key=lambda i: math.dist(now.positions[i], now.tip), default=None)

    def _lies_home(self, scene: Scene, now: Snapshot, index: int) -> bool:
        leans = now.positions[index, 2] > scene.things[index].height / 2 + 0.008
        return is_home(scene, now.positions, index) and not leans

    def _place(self, scene: Scene, now: Snapshot, index: int) -> tuple[float, float, float]:
        return sort_place(scene, now.positions, index)


def sort_place(scene: Scene, positions: Array, index: int) -> tuple[float, float, float]:
    """Compute where the middle of the bottom of an object to be sorted belongs [m, table].

    It is the free half of its pad, or the right half if both are free.

    Args:
        scene: The scene, which contains the pads.
        positions: Centres of all objects (N, 3) [m, table].
        index: Index of the object.
    """
    home = scene.homes[index]
    pad = scene.pads[home]
    there = [
        positions[i, 1]
        for i in range(len(scene.things))
        if i != index and scene.homes[i] == home and is_home(scene, positions, i)
    ]
    left = bool(there) and there[0] < pad.y
    return pad.x, pad.y + (_SPOT if left else -_SPOT), 0.0
