"""What a scripted expert consists of: a plan that says, step by step, where the tools should go."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from actionprior.envs.kinematics import Array
from actionprior.envs.scene import Scene, Thing
from actionprior.envs.tasks import Snapshot

HOVER = 0.10
"""Height to travel at above what is approached [m]."""
_FUNNEL_NECK = 0.006
"""Distance in the plane from which the way is straight down [m]."""
_JAW_DEPTH = 0.03
"""How deep jaws grasp [m]."""
_JAW_CLEARANCE = 0.012
"""How far above an object's bottom their tips stay [m]."""


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
