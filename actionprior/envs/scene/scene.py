"""Scenes: the coloured objects and pads on the table, and how they are drawn at random.

Table coordinates are in metres. The origin is the middle of the workspace on the table's surface. x
points away from the robot, y to its left, z up. The workspace is the same for every robot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from actionprior.envs.scene.drawer_body import Drawer
from actionprior.errors import UserError

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.10, 0.25, 0.90),
    "yellow": (0.98, 0.85, 0.05),
    "purple": (0.58, 0.12, 0.72),
}
"""RGB of the colours that instructions name, 0..1."""

WORKSPACE = (0.14, 0.22)
"""Half-widths of the region where objects and pads start, along x and y [m]."""
PAD_SIZE = 0.10
"""Edge of the square pads [m]."""

_GAP = 0.107
"""Smallest distance between the centres of an object and another object or a pad. A disc then
does not overlap a pad's corner [m]."""
_PAD_GAP = 0.142
"""Smallest distance between the centres of two pads, so that their corners do not overlap [m]."""
_SCATTER_GAP = 0.018
"""Smallest gap between the squares that :func:`scatter` places [m]."""
_SCATTER_FREE = 0.05
"""Largest half-edge of a square whose centre may be anywhere in the workspace [m]."""


class Shape(NamedTuple):
    """Shape of an object. ``radius`` is half the edge of a box or the radius of a cylinder [m]."""

    box: bool
    radius: float
    height: float


SHAPES: dict[str, Shape] = {
    "cube": Shape(box=True, radius=0.025, height=0.05),
    "cylinder": Shape(box=False, radius=0.023, height=0.07),
    "disc": Shape(box=False, radius=0.036, height=0.026),
}


class Thing(NamedTuple):
    """An object on the table, at x, y [m], rotated by yaw [rad]."""

    color: str
    shape: str
    x: float
    y: float
    yaw: float

    @property
    def height(self) -> float:
        """Height of the object [m]."""
        return SHAPES[self.shape].height

    @property
    def label(self) -> str:
        """Name of the object in instructions, e.g. ``red cube``."""
        return f"{self.color} {self.shape}"


class Pad(NamedTuple):
    """A flat coloured square on the table, centred at x, y, with edge ``size`` [m]."""

    color: str
    x: float
    y: float
    size: float = PAD_SIZE


class Lamp(NamedTuple):
    """A plate at x, y [m] that can show a colour as a cue. It does not collide."""

    x: float
    y: float


class Scene(NamedTuple):
    """Objects and pads, and which of them the instruction refers to.

    Attributes:
        things: The objects.
        pads: The pads.
        target: Index of the object that the instruction names, or of the first relevant object.
        goal: Index of the pad that the instruction names, or None without pads.
        order: Indices of the objects that the task handles one after the other.
        homes: Index of the pad that each object belongs on. Empty unless the task sorts objects.
        lamp: The lamp, if any.
        drawer: The drawer, if any.
    """

    things: tuple[Thing, ...]
    pads: tuple[Pad, ...]
    target: int
    goal: int | None
    order: tuple[int, ...] = ()
    homes: tuple[int, ...] = ()
    lamp: Lamp | None = None
    drawer: Drawer | None = None

    @property
    def target_thing(self) -> Thing:
        """Object that the instruction names."""
        return self.things[self.target]

    @property
    def goal_pad(self) -> Pad:
        """Pad that the instruction names.

        Raises:
            UserError: The scene has no pads.
        """
        if self.goal is None:
            raise UserError("this scene has no pads; use the target instead")
        return self.pads[self.goal]


def draw_scene(
    rng: np.random.Generator,
    *,
    objects: int = 3,
    pads: int = 0,
    accept: Callable[[Scene], bool] | None = None,
) -> Scene:
    """Draw a scene: distinct (colour, shape) pairs, spaced places, a random target and goal.

    Pads get colours that no object has, so every object is visible on every pad.

    Args:
        rng: The only source of randomness.
        objects: Number of objects.
        pads: Number of pads.
        accept: Further condition on the places. They are drawn again until it returns True.
    """
    kinds = [(color, shape) for color in COLORS for shape in SHAPES]
    picked = [kinds[i] for i in rng.choice(len(kinds), objects, replace=False)]
    free = [color for color in COLORS if color not in {color for color, _ in picked}]
    pad_colors = [free[i] for i in rng.choice(len(free), pads, replace=False)]
    target = int(rng.integers(objects))
    goal = int(rng.integers(pads)) if pads else None
    yaws = rng.uniform(-math.pi, math.pi, objects)
    while True:
        places = _draw_places(rng, objects, pads)
        things = tuple(
            Thing(color, shape, *place, float(yaw))
            for (color, shape), place, yaw in zip(picked, places[:objects], yaws, strict=True)
        )
        squares = tuple(Pad(c, *p) for c, p in zip(pad_colors, places[objects:], strict=True))
        scene = Scene(things, squares, target, goal)
        if accept is None or accept(scene):
            return scene


def scatter(rng: np.random.Generator, halves: Sequence[float]) -> list[tuple[float, float]]:
    """Draw places of axis-parallel squares of different sizes that do not touch each other.

    Larger squares keep further from the edge of the workspace. Squares are placed by rejection
    sampling, which restarts when the table is full. If the squares cannot fit, it never returns.

    Args:
        rng: The only source of randomness.
        halves: Half the edge of each square [m].
    """
    while True:
        places: list[tuple[float, float]] = []
        for half in halves:
            inset = max(0.0, half - _SCATTER_FREE)
            for x, y in rng.uniform(-1.0, 1.0, (40, 2)).tolist():
                x, y = x * (WORKSPACE[0] - inset), y * (WORKSPACE[1] - inset)
                if all(
                    max(abs(x - u), abs(y - v)) >= half + other + _SCATTER_GAP
                    for (u, v), other in zip(places, halves, strict=False)
                ):
                    places.append((x, y))
                    break
            else:
                break
        if len(places) == len(halves):
            return places


def _draw_places(rng: np.random.Generator, objects: int, pads: int) -> list[tuple[float, float]]:
    """Draw spaced places by rejection sampling, which restarts when the table is full."""
    while True:
        places: list[tuple[float, float]] = []
        for x, y in rng.uniform(-1.0, 1.0, (40, 2)).tolist():
            x, y = x * WORKSPACE[0], y * WORKSPACE[1]
            gaps = [
                _PAD_GAP if min(len(places), i) >= objects else _GAP for i in range(len(places))
            ]
            if all(
                math.hypot(x - u, y - v) >= gap for (u, v), gap in zip(places, gaps, strict=True)
            ):
                places.append((x, y))
                if len(places) == objects + pads:
                    return places
