"""Stages of a task: scenes at some point of an episode, and the object to handle next.

No physics is simulated. The part of the episode that is already done is drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.arms.robots import Triple
from actionprior.envs.experts.drawer import OPEN
from actionprior.envs.experts.long_horizon import sort_place
from actionprior.envs.scene.drawer_body import TRAVEL
from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks import DrawerTask, OnceEachTask, RecallTask, SortTask, StackTask, Task
from actionprior.errors import UserError

UNKNOWN: Triple = (math.nan, math.nan, math.nan)
"""Goal that the image does not show."""

_ASIDE = 0.005
"""Largest error of an object's place along x and along y, as of an expert [m]."""
_LIT = 1 / 3
"""Share of scenes of ``recall`` in which the lamp shows its colour."""


class SceneStage(NamedTuple):
    """A scene at one stage of its task.

    Attributes:
        scene: The scene with each object at its current place. Its target is handled next.
        goals: Map from the index of each object that may be handled next to its goal [m, table],
            or to None if the task has no goal. Of several objects, the one nearest to the tip is
            next.
        holds: Indices of the objects that the arm may hold.
        loose: True if the target may be moved elsewhere.
        carried: Map from the index of each stacked object to the index of the object below it.
        opening: Opening of the drawer [m].
        tab: Middle of the tab to pull before any object is handled [m, table], or None.
        light: Colour that the lamp shows, or None.
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
        """Compute the centre of an object [m, table]."""
        thing = self.scene.things[index]
        return thing.x, thing.y, self.top(index) - thing.height / 2

    def top(self, index: int) -> float:
        """Compute the height of an object's top [m]."""
        below = self.carried.get(index)
        return self.scene.things[index].height + (0.0 if below is None else self.top(below))

    def next(self, tip: Array) -> int:
        """Return the object that is handled next when the tip is at ``tip`` (3,) [m, table]."""
        return min(self.goals, key=lambda index: math.dist(self.centre(index), tip))


def draw_stage(task: Task, rng: np.random.Generator) -> SceneStage:
    """Draw a scene of a one-arm task, and a stage of an episode in it.

    - ``stack``: the middle cube goes onto the bottom one, or the top one onto both.
    - ``sort``: up to three objects are on their pads. Of the others, the one nearest to the tip is
      next, as for the expert.
    - ``drawer``: until the drawer is open, its tab goes to its place when fully open. Then the
      object goes to the middle of the drawer.
    - ``recall``: the goal is the lamp's pad while the lamp is on, and unknown afterwards.
    - ``once_each``: the object nearest to the tip is next, and the identical one is its goal. The
      image does not show which was touched before.
    - other tasks: the target goes to the goal pad, if any.

    Args:
        task: Task of the scene.
        rng: The only source of randomness.
    """
    scene = task.draw(rng)
    match task:
        case StackTask():
            return _stack(scene, rng)
        case SortTask():
            return _sort(scene, rng)
        case DrawerTask():
            return _drawer(scene, rng)
        case RecallTask() if rng.random() < _LIT:
            pad = scene.goal_pad
            return SceneStage(scene, {scene.target: (pad.x, pad.y, 0.0)}, light=pad.color)
        case RecallTask():
            return SceneStage(scene, {scene.target: UNKNOWN}, (scene.target,), loose=True)
        case OnceEachTask():
            first, second = (SceneStage(scene, {}).centre(index) for index in scene.order)
            return SceneStage(scene, dict(zip(scene.order, (second, first), strict=True)))
    goal = None if scene.goal is None else (scene.goal_pad.x, scene.goal_pad.y, 0.0)
    return SceneStage(scene, {scene.target: goal}, tuple(range(len(scene.things))), loose=True)


def _stack(scene: Scene, rng: np.random.Generator) -> SceneStage:
    bottom, middle, top = scene.order
    if rng.random() < 0.5:
        scene, target, below, carried = scene._replace(target=middle), middle, bottom, {}
    else:
        below_thing = scene.things[bottom]
        scene = _put(scene, middle, (below_thing.x, below_thing.y), rng)
        target, below, carried = top, middle, {middle: bottom}
    stage = SceneStage(scene, {}, (target,), loose=True, carried=carried)
    return stage._replace(goals={target: stage.centre(below)})


def _sort(scene: Scene, rng: np.random.Generator) -> SceneStage:
    count = len(scene.things)
    order = rng.permutation(count).tolist()
    done = int(rng.integers(count))  # at least one object is left
    for index in order[:done]:
        positions = np.array([(t.x, t.y, t.height / 2) for t in scene.things])
        scene = _put(scene, index, sort_place(scene, positions, index)[:2], rng)
    left = tuple(order[done:])
    pads = (scene.pads[scene.homes[index]] for index in left)
    goals = {index: (pad.x, pad.y, 0.0) for index, pad in zip(left, pads, strict=True)}
    return SceneStage(scene._replace(target=left[0]), goals, left)


def _drawer(scene: Scene, rng: np.random.Generator) -> SceneStage:
    drawer = scene.drawer
    if drawer is None:
        raise UserError("this scene has no drawer")
    if rng.random() < 0.5:
        opening = float(rng.uniform(OPEN, TRAVEL))
        return SceneStage(
            scene, {scene.target: drawer.middle(opening)}, (scene.target,), opening=opening
        )
    opening = float(rng.uniform(0.0, OPEN)) if rng.random() < 0.5 else 0.0
    goals = {scene.target: drawer.handle(TRAVEL)}
    return SceneStage(scene, goals, opening=opening, tab=drawer.handle(opening))


def _put(scene: Scene, index: int, at: tuple[float, float], rng: np.random.Generator) -> Scene:
    """Place an object at ``at`` with an error like an expert's, and return the new scene."""
    x, y = (at + rng.uniform(-_ASIDE, _ASIDE, 2)).tolist()
    return move(scene, index, x, y)


def move(scene: Scene, index: int, x: float, y: float) -> Scene:
    """Move an object to x, y [m, table], and return the new scene."""
    moved = scene.things[index]._replace(x=x, y=y)
    things = tuple(moved if i == index else thing for i, thing in enumerate(scene.things))
    return scene._replace(things=things)
