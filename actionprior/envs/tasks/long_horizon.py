"""Tasks of several stages: stack three cubes in a given order, sort four objects onto two pads."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.scene.scene import COLORS, SHAPES, Pad, Scene, Thing, draw_scene, scatter
from actionprior.envs.tasks.base import Snapshot, Task, rests

STACK_TOLERANCE = 0.02
"""Largest horizontal distance between the centres of two cubes of a stack [m]."""
SORT_PAD_SIZE = 0.15
"""Edge of a pad for two objects [m]."""

_STAND_SECONDS = 0.3
_PLURAL = {"cube": "cubes", "cylinder": "cylinders", "disc": "discs"}


class StackTask(Task):
    """Stack three cubes in the order that the instruction names, and release them."""

    name = "stack"
    seconds = 16.0
    wordings = (
        "stack the {top} on the {middle} on the {bottom}",
        "build a tower: the {top} on the {middle} on the {bottom}",
        "put the {middle} on the {bottom} and the {top} on the {middle}",
    )
    held_out_wordings = (
        "pile up the {bottom}, then the {middle}, then the {top}",
        "from the top down, stack the {top}, the {middle} and the {bottom}",
    )

    def draw(self, rng: np.random.Generator) -> Scene:
        """See :class:`Task`. ``order`` lists cubes bottom to top. The target is the top one."""
        scene = draw_scene(rng)
        colors = [list(COLORS)[i] for i in rng.choice(len(COLORS), len(scene.things), False)]
        things = tuple(
            thing._replace(color=color, shape="cube")
            for thing, color in zip(scene.things, colors, strict=True)
        )
        order = tuple(rng.permutation(len(things)).tolist())
        return scene._replace(things=things, order=order, target=order[-1])

    def __init__(self) -> None:
        self._since: float | None = None

    def reset(self) -> None:
        """See :class:`Task`."""
        self._since = None

    def words(self, scene: Scene) -> dict[str, str]:
        """See :class:`Task`."""
        labels = (scene.things[i].label for i in scene.order)
        return dict(zip(("bottom", "middle", "top"), labels, strict=True))

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`. The stack has to stand for 0.3 s."""
        if not self._stands(scene, now):
            self._since = None
            return False
        self._since = now.time if self._since is None else self._since
        return now.time - self._since > _STAND_SECONDS - 1e-6

    def _stands(self, scene: Scene, now: Snapshot) -> bool:
        if now.held is not None or now.suction:
            return False
        floor, below = 0.0, scene.order[0]
        for index in scene.order:
            aside = math.dist(now.positions[index, :2], now.positions[below, :2])
            bottom = now.positions[index, 2] - scene.things[index].height / 2
            if aside > STACK_TOLERANCE or bottom < floor - 0.01:
                return False
            if not rests(scene, now, index, floor):
                return False
            floor, below = floor + scene.things[index].height, index
        return True


class SortTask(Task):
    """Sort objects of two kinds, which differ in colour or in shape, onto two pads."""

    name = "sort"
    pads = 2
    seconds = 32.0
    wordings = (
        "put the {first} on the {first_pad} pad and the {second} on the {second_pad} pad",
        "sort the {first} onto the {first_pad} pad and the {second} onto the {second_pad} pad",
        "place the {first} on the {first_pad} pad, and place the {second} on the {second_pad} pad",
    )
    held_out_wordings = (
        "gather the {first} on the {first_pad} pad and the {second} on the {second_pad} pad",
        "the {first} belong on the {first_pad} pad, the {second} on the {second_pad} pad",
    )

    def draw(self, rng: np.random.Generator) -> Scene:
        """See :class:`Task`. ``homes`` holds the index of each object's pad."""
        colors = [list(COLORS)[i] for i in rng.permutation(len(COLORS))]
        shapes = [list(SHAPES)[i] for i in rng.permutation(len(SHAPES))]
        if rng.random() < 0.5:  # by colour
            kinds = [(color, shape) for color in colors[:2] for shape in _two(rng, shapes)]
        else:
            kinds = [(color, shape) for shape in shapes[:2] for color in colors[:2]]
        halves = [SORT_PAD_SIZE / 2] * 2 + [SHAPES[shape].radius for _, shape in kinds]
        places = scatter(rng, halves)
        yaws = rng.uniform(-math.pi, math.pi, len(kinds)).tolist()
        pads = tuple(
            Pad(color, *place, SORT_PAD_SIZE)
            for color, place in zip(colors[2:4], places[:2], strict=True)
        )
        things = [
            Thing(*kind, *at, yaw) for kind, at, yaw in zip(kinds, places[2:], yaws, strict=True)
        ]
        shuffled = rng.permutation(len(things)).tolist()
        return Scene(
            things=tuple(things[i] for i in shuffled),
            pads=pads,
            target=shuffled.index(0),
            goal=0,
            homes=tuple(i // 2 for i in shuffled),
        )

    def words(self, scene: Scene) -> dict[str, str]:
        """See :class:`Task`."""
        names = (_kind(scene, 0), _kind(scene, 1))
        return {
            "first": names[0],
            "first_pad": scene.pads[0].color,
            "second": names[1],
            "second_pad": scene.pads[1].color,
        }

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        if now.held is not None or now.suction:
            return False
        return all(
            is_home(scene, now.positions, i) and rests(scene, now, i)
            for i in range(len(scene.things))
        )


def is_home(scene: Scene, positions: Array, index: int) -> bool:
    """Check that the centre of an object, given all positions (N, 3) [m], is above its pad."""
    pad = scene.pads[scene.homes[index]]
    x, y, _ = positions[index]
    return bool(max(abs(x - pad.x), abs(y - pad.y)) < pad.size / 2)


def _two(rng: np.random.Generator, shapes: list[str]) -> list[str]:
    return [shapes[i] for i in rng.choice(len(shapes), 2, replace=False)]


def _kind(scene: Scene, pad: int) -> str:
    """Name what the objects of a pad have in common, as in an instruction."""
    mine = [t for t, home in zip(scene.things, scene.homes, strict=True) if home == pad]
    if len({thing.shape for thing in mine}) == 1:
        return _PLURAL[mine[0].shape]
    return f"{mine[0].color} things"
