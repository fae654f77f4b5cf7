"""What a plan is, and the motions that plans are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.scene.scene import Scene, Thing
from actionprior.envs.tasks import Snapshot

HOVER = 0.10
"""Height to travel at above what is approached [m]."""
_FUNNEL_NECK = 0.006
"""Distance in the plane from which the way is straight down [m]."""
_JAW_DEPTH = 0.03
"""How deep jaws grasp [m]."""
_JAW_CLEARANCE = 0.012
"""How far above an object's bottom their tips stay [m]."""
_RETREAT = 0.25
"""Height of the tip at which a finished expert waits [m, table]."""
_CLEAR = 0.05
"""How far above an object that was let go the tip counts as clear of it [m]."""


class Aim(NamedTuple):
    """Where one tool should go next.

    Attributes:
        tip: (3,) wanted place of the tip [m, table].
        suction: whether the tool should hold: a vacuum on, jaws closed.
        speed: limit on the speed, of the expert's own.
        direction: (3,) unit vector along which the tool should point; None: straight down.
    """

    tip: Array
    suction: bool = False
    speed: float = 1.0
    direction: Array | None = None


class Plan(ABC):
    """Says the next aim; its state lasts one episode.

    Attributes:
        opens: whether jaws are open while they hold nothing; a plan that pushes keeps them closed.
    """

    opens: ClassVar[bool] = True

    @abstractmethod
    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """The aim of the first arm for the current state."""

    def aims(self, scene: Scene, now: Snapshot) -> tuple[Aim, ...]:
        """The aims of all arms; a plan for two overrides it."""
        return (self.aim(scene, now),)


class Put:
    """Grasp an object, carry it, put it down at a place, let go, back off.

    Args:
        index: the object.
        within: distance in the plane at which to let go [m].
        slope: how steeply to come down on the place; steeper clears what stands beside it.
        rise: how far to lift the object before carrying it [m]; higher clears what stands around.

    Attributes:
        released: whether the object was let go at its place and the tip backs off.
    """

    def __init__(
        self, index: int, within: float = 0.015, slope: float = 1.5, rise: float = 0.05
    ) -> None:
        self.released = False
        self._index, self._within = index, within
        self._slope, self._rise = slope, rise

    def aim(self, scene: Scene, now: Snapshot, place: tuple[float, float, float]) -> Aim:
        """The aim that brings the middle of the object's bottom to ``place`` [m, table]."""
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
        # The object leads: the tip goes where it brings the object's bottom to the place.
        offset = now.tip - (x, y, bottom)
        if aside > 0.05 and bottom < floor + self._rise:
            return Aim(np.array([now.tip[0], now.tip[1], offset[2] + floor + HOVER]), suction=True)
        goal = funnel(now.tip - offset, (to_x, to_y, floor + 0.003), slope=self._slope) + offset
        return Aim(goal, suction=True)

    def clear(self, scene: Scene, now: Snapshot) -> bool:
        """Whether the object was let go and the tip has left it behind."""
        top = now.positions[self._index, 2] + scene.things[self._index].height / 2
        return self.released and now.held is None and bool(now.tip[2] > top + _CLEAR)


def retreat(now: Snapshot) -> Aim:
    """Straight up, then wait: what a demonstration shows last should be worth repeating."""
    return Aim(np.array([now.tip[0], now.tip[1], _RETREAT]))


def grasp(scene: Scene, now: Snapshot, index: int) -> Aim:
    """Come down on an object with the cup, which goes on just before it touches, or around it."""
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
    """How far the tips of jaws reach below the top of an object that they grasp [m]."""
    return min(_JAW_DEPTH, thing.height - _JAW_CLEARANCE)


def funnel(
    tip: Array, goal: tuple[float, float, float], hover: float = HOVER, slope: float = 1.5
) -> Array:
    """Aim at ``goal``, but only as low as the distance in the plane allows.

    Args:
        tip: (3,) where the tip is [m].
        goal: where it should get to [m].
        hover: most that the aim is above the goal [m].
        slope: rise of the funnel's wall over its run; jaws, which must not land on what they are
            to go around, need a steep one.
    """
    aside = math.hypot(tip[0] - goal[0], tip[1] - goal[1])
    height = goal[2] + min(hover, slope * max(0.0, aside - _FUNNEL_NECK))
    return np.array([goal[0], goal[1], height])
