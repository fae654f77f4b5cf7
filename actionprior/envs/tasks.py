"""The tasks: how each draws its scene, says its instruction, and judges success.

A task is a small class; the environment asks nothing else of it. Later suites add tasks by
subclassing :class:`Task`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from actionprior.envs.kinematics import Array
from actionprior.envs.scene import Scene, draw_scene
from actionprior.errors import UserError

REACH_HEIGHT = 0.03
"""How far above the target's top the tip has to go in ``reach`` [m]."""
REACH_TOLERANCE = 0.025
PAD_TOLERANCE = 0.04
"""Largest distance of an object's centre from the pad's centre, in the plane [m]."""
LIFT_HEIGHT = 0.10

_PUSH_WAY = (0.107, 0.18)
"""How far a push has to go [m]. An object pushed at one point slips off sideways, and the more so
the longer the way."""
_PUSH_CLEARANCE = 0.08
_PUSH_RUN_UP = 0.07
_PUSH_NEAREST = -0.16
"""Nearest to the robots that a push may start; closer, the longer arms cannot fold [m]."""

_SIDE = 0.10
"""How far from the middle a handover's target and pad lie at least [m]."""


class Hand(NamedTuple):
    """The tool of one arm.

    Attributes:
        tip: (3,) its tip in table coordinates [m].
        direction: (3,) unit vector along which it points.
        held: index of the object that it holds, or None.
        on: whether it is commanded to hold.
        jaws: whether it has jaws, which go around an object, not a cup, which goes on top.
    """

    tip: Array
    direction: Array
    held: int | None
    on: bool
    jaws: bool


class Snapshot(NamedTuple):
    """What a task may look at after a step, in table coordinates.

    Attributes:
        tip: (3,) tip of the first arm's tool [m].
        positions: (objects, 3) centres of the objects [m].
        speeds: (objects,) speeds of the objects [m/s].
        held: index of the object that the first arm holds, or None.
        suction: whether the first arm's tool is commanded to hold.
        hands: the tools of all arms, the first arm's too.
    """

    tip: Array
    positions: Array
    speeds: Array
    held: int | None
    suction: bool
    hands: tuple[Hand, ...] = ()


class Task(ABC):
    """One task; the state that it keeps lasts one episode.

    Attributes:
        name: short name.
        pads: how many pads its scene has.
        arms: how many arms it takes.
        seconds: how long an episode lasts at most [s].
    """

    name: ClassVar[str]
    pads: ClassVar[int] = 0
    arms: ClassVar[int] = 1
    seconds: ClassVar[float] = 6.0

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw a scene with target and goal."""
        return draw_scene(rng, pads=self.pads, accept=self.accepts)

    def accepts(self, scene: Scene) -> bool:
        """Whether the places drawn make a fair instance of the task."""
        return True

    def reset(self) -> None:
        """Forget the last episode."""
        return

    @abstractmethod
    def instruction(self, scene: Scene) -> str:
        """The instruction for ``scene``."""

    @abstractmethod
    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """Whether the task is done; asked once after every step."""


class Reach(Task):
    """Bring the tool's tip to just above the target and stay for two steps."""

    name = "reach"

    def __init__(self) -> None:
        self._steps = 0

    def reset(self) -> None:
        """See :class:`Task`."""
        self._steps = 0

    def instruction(self, scene: Scene) -> str:
        """See :class:`Task`."""
        return f"reach the {scene.target_thing.label}"

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        x, y, z = now.positions[scene.target]
        above = (x, y, z + scene.target_thing.height / 2 + REACH_HEIGHT)
        near = math.dist(above, now.tip) < REACH_TOLERANCE
        self._steps = self._steps + 1 if near else 0
        return self._steps >= 2


class Push(Task):
    """Push the target to a pad by contact; an episode in which suction held it never succeeds."""

    name = "push"
    pads = 2

    def __init__(self) -> None:
        self._cheated = False

    def reset(self) -> None:
        """See :class:`Task`."""
        self._cheated = False

    def accepts(self, scene: Scene) -> bool:
        """The way is 11 to 18 cm; it and the run-up are reachable and clear of other objects."""
        thing, pad = scene.target_thing, scene.goal_pad
        way = math.hypot(pad.x - thing.x, pad.y - thing.y)
        if not _PUSH_WAY[0] <= way <= _PUSH_WAY[1]:
            return False
        back = _PUSH_RUN_UP / way
        start = (thing.x - back * (pad.x - thing.x), thing.y - back * (pad.y - thing.y))
        if start[0] < _PUSH_NEAREST:
            return False
        others = (t for i, t in enumerate(scene.things) if i != scene.target)
        return all(
            _distance_to_segment((t.x, t.y), start, (pad.x, pad.y)) > _PUSH_CLEARANCE
            for t in others
        )

    def instruction(self, scene: Scene) -> str:
        """See :class:`Task`."""
        return f"push the {scene.target_thing.label} to the {scene.goal_pad.color} pad"

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        self._cheated = self._cheated or now.held == scene.target
        return not self._cheated and _on_pad(scene, now)


class Lift(Task):
    """Lift the target, and no other object, by 10 cm."""

    name = "lift"

    def instruction(self, scene: Scene) -> str:
        """See :class:`Task`."""
        return f"lift the {scene.target_thing.label}"

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        bottom = now.positions[scene.target, 2] - scene.target_thing.height / 2
        return now.held == scene.target and bool(bottom >= LIFT_HEIGHT)


class Place(Task):
    """Pick the target up, put it on the pad, and let go of it."""

    name = "place"
    pads = 2

    def instruction(self, scene: Scene) -> str:
        """See :class:`Task`."""
        return f"place the {scene.target_thing.label} on the {scene.goal_pad.color} pad"

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        low = now.positions[scene.target, 2] < scene.target_thing.height / 2 + 0.01
        resting = low and now.speeds[scene.target] < 0.05
        return now.held is None and bool(resting) and _on_pad(scene, now)


class Handover(Task):
    """Two arms: the right one picks the target up and hands it over, the left one places it.

    The target starts at y <= -0.10, out of the left arm's reach, and the pad lies at y >= 0.10,
    out of the right arm's. How it gets across is not judged.
    """

    name = "handover"
    pads = 2
    arms = 2
    seconds = 10.0

    def accepts(self, scene: Scene) -> bool:
        """Target and pad lie on the two sides."""
        return scene.target_thing.y <= -_SIDE and scene.goal_pad.y >= _SIDE

    def instruction(self, scene: Scene) -> str:
        """See :class:`Task`."""
        thing, pad = scene.target_thing, scene.goal_pad
        return f"hand the {thing.label} over and put it on the {pad.color} pad"

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        low = now.positions[scene.target, 2] < scene.target_thing.height / 2 + 0.01
        resting = low and now.speeds[scene.target] < 0.05
        let_go = all(hand.held is None for hand in now.hands)
        return let_go and bool(resting) and _on_pad(scene, now)


TASKS: dict[str, type[Task]] = {task.name: task for task in (Reach, Push, Lift, Place, Handover)}


def make_task(task: str | Task) -> Task:
    """The task of that name; a :class:`Task` passes through, so users can bring their own.

    Raises:
        UserError: no task has that name.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known; choose one of {sorted(TASKS)}")
    return TASKS[task]()


def _on_pad(scene: Scene, now: Snapshot) -> bool:
    pad = scene.goal_pad
    x, y, _ = now.positions[scene.target]
    return bool(math.hypot(x - pad.x, y - pad.y) < PAD_TOLERANCE)


def _distance_to_segment(
    point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]
) -> float:
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((point[0] - start[0]) * dx + (point[1] - start[1]) * dy) / (dx * dx + dy * dy)
    along = min(1.0, max(0.0, along))
    return math.hypot(point[0] - start[0] - along * dx, point[1] - start[1] - along * dy)
