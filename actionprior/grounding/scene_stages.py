"""Stages of a task: scenes as they look on the way, and what is to be handled next in them.

No physics runs; what an episode has done so far is drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.experts.drawer import OPEN
from actionprior.envs.experts.long_horizon import sort_place
from actionprior.envs.scene.bullet import Triple
from actionprior.envs.scene.drawer_body import TRAVEL
from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks import OnceEach, OpenDrawer, Recall, Sort, Stack, Task
from actionprior.errors import UserError

UNKNOWN: Triple = (math.nan, math.nan, math.nan)
"""A goal that the picture does not tell."""

_ASIDE = 0.005
"""How far from its place an object was put down at most, along x and along y [m]."""
_LIT = 1 / 3
"""Share of scenes in which the lamp shows its colour."""


class Stage(NamedTuple):
    """A scene at one stage of its task.

    Attributes:
        scene: the scene, each object where it stands by now; its target is to be handled next.
        goals: the objects that may be next, and where each goes [m, table]: None where the task
            asks for no place. Of several, the one nearest to the tip is next.
        holds: the objects that the arm may hold.
        loose: whether the target may as well stand elsewhere.
        carried: which object each other one stands on, by index.
        opening: how far the drawer is open [m].
        tab: middle of the tab that is to be pulled before any object is handled [m, table].
        light: the colour that the lamp shows.
    """

    scene: Scene
    goals: Mapping[int, Triple | None]
    holds: tuple[int, ...] = ()
    loose: bool = False
    carried: Mapping[int, int] = MappingProxyType({})
    opening: float = 0.0
    tab: Triple | None = None
    light: str | None = None

    def centre(self, index: int) -> Triple:
        """Where the middle of an object is [m, table]."""
        thing = self.scene.things[index]
        return thing.x, thing.y, self.top(index) - thing.height / 2

    def top(self, index: int) -> float:
        """Height of the top of an object [m]."""
        below = self.carried.get(index)
        return self.scene.things[index].height + (0.0 if below is None else self.top(below))

    def next(self, tip: Array) -> int:
        """The object that is handled next when the tip (3,) is there [m, table]."""
        return min(self.goals, key=lambda index: math.dist(self.centre(index), tip))


def draw_stage(task: Task, rng: np.random.Generator) -> Stage:
    """Draw a scene of a task of one arm and a stage that an episode in it goes through.

    - ``stack``: the middle cube goes to the bottom one, or lies there and the top one goes to it.
    - ``sort``: up to three objects lie on their pads; of the others the one nearest to the tip is
      next: the one that the expert sets out for, or holds.
    - ``drawer``: while it is closed or half open, its tab goes to where it is when all is open;
      then the object goes to the middle of the drawer.
    - ``recall``: the goal is the lamp's pad while the lamp is lit, and unknown afterwards.
    - ``once_each``: the twin nearest to the tip is next, the other one is its goal. Which of them
      was touched before cannot be seen.
    - any other task: the target goes to the goal's pad, if there is one.
    """
    scene = task.draw(rng)
    match task:
        case Stack():
            return _stack(scene, rng)
        case Sort():
            return _sort(scene, rng)
        case OpenDrawer():
            return _drawer(scene, rng)
        case Recall() if rng.random() < _LIT:
            pad = scene.goal_pad
            return Stage(scene, {scene.target: (pad.x, pad.y, 0.0)}, light=pad.color)
        case Recall():
            return Stage(scene, {scene.target: UNKNOWN}, (scene.target,), loose=True)
        case OnceEach():
            first, second = (Stage(scene, {}).centre(index) for index in scene.order)
            return Stage(scene, dict(zip(scene.order, (second, first), strict=True)))
    goal = None if scene.goal is None else (scene.goal_pad.x, scene.goal_pad.y, 0.0)
    return Stage(scene, {scene.target: goal}, tuple(range(len(scene.things))), loose=True)


def _stack(scene: Scene, rng: np.random.Generator) -> Stage:
    bottom, middle, top = scene.order
    if rng.random() < 0.5:
        scene, target, below, carried = scene._replace(target=middle), middle, bottom, {}
    else:
        below_thing = scene.things[bottom]
        scene = _put(scene, middle, (below_thing.x, below_thing.y), rng)
        target, below, carried = top, middle, {middle: bottom}
    stage = Stage(scene, {}, (target,), loose=True, carried=carried)
    return stage._replace(goals={target: stage.centre(below)})


def _sort(scene: Scene, rng: np.random.Generator) -> Stage:
    count = len(scene.things)
    order = rng.permutation(count).tolist()
    done = int(rng.integers(count))  # not all of them
    for index in order[:done]:
        positions = np.array([(t.x, t.y, t.height / 2) for t in scene.things])
        scene = _put(scene, index, sort_place(scene, positions, index)[:2], rng)
    left = tuple(order[done:])
    pads = (scene.pads[scene.homes[index]] for index in left)
    goals = {index: (pad.x, pad.y, 0.0) for index, pad in zip(left, pads, strict=True)}
    return Stage(scene._replace(target=left[0]), goals, left)


def _drawer(scene: Scene, rng: np.random.Generator) -> Stage:
    drawer = scene.drawer
    if drawer is None:
        raise UserError("this scene has no drawer")
    if rng.random() < 0.5:
        opening = float(rng.uniform(OPEN, TRAVEL))
        return Stage(
            scene, {scene.target: drawer.middle(opening)}, (scene.target,), opening=opening
        )
    opening = float(rng.uniform(0.0, OPEN)) if rng.random() < 0.5 else 0.0
    goals = {scene.target: drawer.handle(TRAVEL)}
    return Stage(scene, goals, opening=opening, tab=drawer.handle(opening))


def _put(scene: Scene, index: int, at: tuple[float, float], rng: np.random.Generator) -> Scene:
    """The scene with an object put down at about that place, as well as an expert does."""
    x, y = (at + rng.uniform(-_ASIDE, _ASIDE, 2)).tolist()
    return move(scene, index, x, y)


def move(scene: Scene, index: int, x: float, y: float) -> Scene:
    """The scene with an object at x, y [m, table]."""
    moved = scene.things[index]._replace(x=x, y=y)
    things = tuple(moved if i == index else thing for i, thing in enumerate(scene.things))
    return scene._replace(things=things)
