"""What stands on the table: coloured objects and pads, and how a scene is drawn at random.

Table coordinates: the origin is the middle of the workspace on the table's surface, x points away
from the robot, y to its left, z up; metres. The workspace is the same for every robot.
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
"""Least distance between the centres of what stands on the table: a disc clears a pad's corner
[m]."""
_PAD_GAP = 0.142
"""Least distance between the centres of two pads: their corners clear each other [m]."""
_SCATTER_GAP = 0.018
"""Least gap between the squares around what :func:`scatter` places [m]."""
_SCATTER_FREE = 0.05
"""Half-edge up to which a square may be centred anywhere in the workspace [m]."""


class Shape(NamedTuple):
    """A kind of object: ``radius`` is half the edge of a box or the radius of a cylinder [m]."""

    box: bool
    radius: float
    height: float


SHAPES: dict[str, Shape] = {
    "cube": Shape(box=True, radius=0.025, height=0.05),
    "cylinder": Shape(box=False, radius=0.023, height=0.07),
    "disc": Shape(box=False, radius=0.036, height=0.026),
}


class Thing(NamedTuple):
    """An object to be put on the table, at x, y [m], turned by yaw [rad]."""

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
        """How an instruction names it, e.g. ``red cube``."""
        return f"{self.color} {self.shape}"


class Pad(NamedTuple):
    """A flat coloured square on the table, centred at x, y, of edge ``size`` [m]."""

    color: str
    x: float
    y: float
    size: float = PAD_SIZE


class Lamp(NamedTuple):
    """A plate at x, y [m] that can show a colour: a cue. Nothing collides with it."""

    x: float
    y: float


class Scene(NamedTuple):
    """Objects, pads, and which of them the instruction means.

    Attributes:
        things: the objects.
        pads: the pads.
        target: index of the object that the instruction names, or of the first that matters.
        goal: index of the pad that the instruction names; None without pads.
        order: objects that the task takes one after the other.
        homes: on which pad each object belongs, where the task asks that of all of them.
        lamp: the lamp, if there is one.
        drawer: the drawer, if there is one.
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
        """The object that the instruction names."""
        return self.things[self.target]

    @property
    def goal_pad(self) -> Pad:
        """The pad that the instruction names.

        Raises:
            UserError: the scene has no pads.
        """
        if self.goal is None:
            raise UserError("this scene has no pads; ask for the target instead")
        return self.pads[self.goal]


def draw_scene(
    rng: np.random.Generator,
    *,
    objects: int = 3,
    pads: int = 0,
    accept: Callable[[Scene], bool] | None = None,
) -> Scene:
    """Draw a scene: distinct (colour, shape) pairs, spaced places, a uniform target and goal.

    Pads take colours that no object has, so nothing vanishes on a pad of its own colour.

    Args:
        rng: the only source of randomness.
        objects: how many objects.
        pads: how many pads.
        accept: what else the places must satisfy; they are drawn again until it returns True.
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
    """Places for upright squares of different sizes so that none touches another.

    Larger ones keep further from the edge of the workspace. By rejection; starts afresh when the
    table is full, and never ends where they cannot fit.

    Args:
        rng: the only source of randomness.
        halves: half the edge of each square [m].
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
    """Places at least a gap apart, by rejection; starts afresh when the table is full."""
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
