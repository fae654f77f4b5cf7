"""Base class of plans, and the motions that they combine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.scene.scene import Scene, Thing
from actionprior.envs.tasks import Snapshot

HOVER = 0.10
"""Height above an approached place at which the tip travels [m]."""
_FUNNEL_NECK = 0.006
"""Horizontal distance within which the tip descends vertically [m]."""
_JAW_DEPTH = 0.03
"""Depth below an object's top at which jaws grasp [m]."""
_JAW_CLEARANCE = 0.012
"""Smallest height of the jaws' tips above an object's bottom [m]."""
_RETREAT = 0.25
"""Height of the tip at which an expert waits when it has finished [m, table]."""
_CLEAR = 0.05
"""Height above a released object at which the tip is clear of it [m]."""


class Aim(NamedTuple):
    """Next goal of one tool.

    Attributes:
        tip: (3,) wanted position of the tip [m, table].
        suction: True if the tool should hold: vacuum on, or jaws closed.
        speed: Speed limit as a share of the expert's top speed.
        direction: (3,) unit vector along which the tool should point. None means straight down.
    """

    tip: Array
    suction: bool = False
    speed: float = 1.0
    direction: Array | None = None


class Plan(ABC):
    """Base class: decide on the next aim. The state of a plan lasts one episode.

    Attributes:
        opens: True if jaws are open while they hold nothing. Plans that push keep them closed.
    """

    opens: ClassVar[bool] = True

    @abstractmethod
    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """Compute the aim of the first arm for the current state."""

    def aims(self, scene: Scene, now: Snapshot) -> tuple[Aim, ...]:
        """Compute the aims of all arms. Plans for two arms override this."""
        return (self.aim(scene, now),)


class PickAndPlace:
    """Grasp an object, carry it to a place, put it down, release it, and retreat.

    Args:
        index: Index of the object.
        within: Horizontal distance from the place at which to release the object [m].
        slope: Slope of the descent. A steeper one avoids objects beside the place.
        rise: Height to lift the object before carrying it [m]. A larger one avoids objects on the
            way.

    Attributes:
        released: True once the object was released at its place and the tip retreats.
    """

    def __init__(
        self, index: int, within: float = 0.015, slope: float = 1.5, rise: float = 0.05
    ) -> None:
        self.released = False
        self._index, self._within = index, within
        self._slope, self._rise = slope, rise

    def aim(self, scene: Scene, now: Snapshot, place: tuple[float, float, float]) -> Aim:
        """Compute the aim that brings the middle of the object's bottom to ``place`` [m, table]."""
        to_x, to_y, floor = place
        x, y, z = now.positions[self._index]
        aside = math.hypot(x - to_x, y - to_y)
        bottom = z - scene.things[self._index].height / 2
        if self.released and aside > 0.04 and bottom < 0.005:
            self.released = False
        if self.released:
            return retreat(now)
        if now.held != self._index:
            return grasp(scene, now, self._index)
        if aside < self._within and bottom < floor + 0.008:
            self.released = True
            return retreat(now)
        # Control the object's bottom instead of the tip, which keeps its offset to it.
        offset = now.tip - (x, y, bottom)
        if aside > 0.05 and bottom < floor + self._rise:
            return Aim(np.array([now.tip[0], now.tip[1], offset[2] + floor + HOVER]), suction=True)
        goal = funnel(now.tip - offset, (to_x, to_y, floor + 0.003), slope=self._slope) + offset
        return Aim(goal, suction=True)

    def clear(self, scene: Scene, now: Snapshot) -> bool:
        """Check that the object was released and the tip is clear of it."""
        top = now.positions[self._index, 2] + scene.things[self._index].height / 2
        return self.released and now.held is None and bool(now.tip[2] > top + _CLEAR)


def retreat(now: Snapshot) -> Aim:
    """Move straight up and wait.

    Policies imitate the end of a demonstration as well, so it should be harmless.
    """
    return Aim(np.array([now.tip[0], now.tip[1], _RETREAT]))


def grasp(scene: Scene, now: Snapshot, index: int) -> Aim:
    """Descend on an object and grasp it: with the cup from above, with jaws from its sides.

    The suction is switched on just before the cup touches the object.
    """
    x, y, z = now.positions[index]
    top = z + scene.things[index].height / 2
    aside = math.hypot(now.tip[0] - x, now.tip[1] - y)
    if now.hands and now.hands[0].jaws:
        low = top - jaw_depth(scene.things[index])
        around = aside < 0.008 and now.tip[2] < low + 0.006
        return Aim(funnel(now.tip, (x, y, low), slope=12.0), suction=around)
    near = aside < 0.02 and now.tip[2] < top + 0.05
    return Aim(funnel(now.tip, (x, y, top - 0.001)), suction=near)


def jaw_depth(thing: Thing) -> float:
    """Compute how far below an object's top the tips of jaws grasp it [m]."""
    return min(_JAW_DEPTH, thing.height - _JAW_CLEARANCE)


def funnel(
    tip: Array, goal: tuple[float, float, float], hover: float = HOVER, slope: float = 1.5
) -> Array:
    """Compute an aim (3,) that approaches ``goal`` from above, inside a funnel around it.

    The aim is above the goal, at a height that grows with the tip's horizontal distance from it.

    Args:
        tip: (3,) current position of the tip [m].
        goal: Position to reach [m].
        hover: Largest height of the aim above the goal [m].
        slope: Slope of the funnel's wall. Jaws need a steep one, so that they do not land on the
            object that they should surround.
    """
    aside = math.hypot(tip[0] - goal[0], tip[1] - goal[1])
    height = goal[2] + min(hover, slope * max(0.0, aside - _FUNNEL_NECK))
    return np.array([goal[0], goal[1], height])
