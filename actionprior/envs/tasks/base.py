"""Base class of tasks: draw a scene, word the instruction, decide on success."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.arms.robots import Robot, Station
from actionprior.envs.scene.scene import Scene, draw_scene
from actionprior.errors import UserError

type Wordings = Literal["one", "train", "held_out"]

WORDINGS: tuple[Wordings, ...] = get_args(Wordings.__value__)
"""``one``: always the first; ``train``: all except the held-out ones; ``held_out``: only those."""

PAD_TOLERANCE = 0.04
"""Largest horizontal distance of an object's centre from the pad's centre [m]."""

_RESTING_HEIGHT = 0.01
"""Largest height of an object's bottom above a surface at which it still stands there [m]."""
_RESTING_SPEED = 0.05
"""Speed below which an object counts as resting [m/s]."""


class Hand(NamedTuple):
    """The tool of one arm.

    Attributes:
        tip: (3,) tip of the tool in table coordinates [m].
        direction: (3,) unit vector along the tool.
        held: Index of the object that the tool holds, or None.
        on: True if the tool is commanded to hold.
        jaws: True if the tool has jaws, which grasp an object from its sides; False if it has a
            cup, which touches its top.
    """

    tip: Array
    direction: Array
    held: int | None
    on: bool
    jaws: bool


class Snapshot(NamedTuple):
    """True state of the world after a step, in table coordinates.

    Attributes:
        tip: (3,) tip of the first arm's tool [m].
        positions: (objects, 3) centres of the objects [m].
        speeds: (objects,) speeds of the objects [m/s].
        held: Index of the object that the first arm holds, or None. The drawer's index is the
            number of objects.
        suction: True if the first arm's tool is commanded to hold.
        hands: Tools of all arms, including the first.
        time: Time since reset [s].
        opening: Opening of the drawer [m], or 0 without a drawer.
    """

    tip: Array
    positions: Array
    speeds: Array
    held: int | None
    suction: bool
    hands: tuple[Hand, ...] = ()
    time: float = 0.0
    opening: float = 0.0


class Task(ABC):
    """Base class: one task. Its state lasts one episode.

    Attributes:
        name: Short name.
        pads: Number of pads in the scene.
        arms: Number of arms that the task needs.
        cup: True if the task needs a suction cup, because objects stand too close for jaws or
            a part has to be pulled.
        seconds: Time limit of an episode [s].
        wordings: Templates of the instruction, filled with :meth:`words`. The first one is the
            default.
        held_out_wordings: Templates for tests, which no demonstration uses.
    """

    name: ClassVar[str]
    pads: ClassVar[int] = 0
    arms: ClassVar[int] = 1
    cup: ClassVar[bool] = False
    seconds: ClassVar[float] = 6.0
    wordings: ClassVar[tuple[str, ...]] = ()
    held_out_wordings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def suits(cls, robot: Robot | Station) -> bool:
        """Check that a robot has the number of arms and the grippers that the task needs."""
        able = not cls.cup or all(arm.gripper == "vacuum" for arm in robot.arms)
        return able and len(robot.arms) == cls.arms

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw a scene with a target and, if the task has pads, a goal."""
        return draw_scene(rng, pads=self.pads, accept=self.accepts)

    def accepts(self, scene: Scene) -> bool:
        """Check that a drawn scene is a valid instance of the task."""
        return True

    def reset(self) -> None:
        """Clear the state of the last episode."""
        return

    def words(self, scene: Scene) -> dict[str, str]:
        """Return the values of the templates' fields in ``scene``: here ``target`` and ``goal``."""
        goal = {} if scene.goal is None else {"goal": scene.goal_pad.color}
        return {"target": scene.target_thing.label, **goal}

    def instruction(self, scene: Scene, wording: str | None = None) -> str:
        """Word the instruction for ``scene``. The default wording is the first template."""
        return (wording or self.wordings[0]).format(**self.words(scene))

    def draw_wording(self, wordings: Wordings, rng: np.random.Generator) -> str:
        """Draw one of the templates that ``wordings`` allows.

        Raises:
            UserError: ``wordings`` is unknown, or the task has no such templates.
        """
        check_wordings(wordings)
        match wordings:
            case "one":
                allowed = self.wordings[:1]
            case "train":
                allowed = self.wordings
            case "held_out":
                allowed = self.held_out_wordings
        if not allowed:
            raise UserError(f"task {self.name!r} has no wordings {wordings!r}; use 'one'")
        return allowed[int(rng.integers(len(allowed)))]

    def cue(self, scene: Scene, time: float) -> str | None:
        """Return the lamp's colour ``time`` seconds after reset, or None if it is off."""
        return None

    @abstractmethod
    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """Check whether the task is solved. Called exactly once after every step."""


def check_wordings(wordings: str) -> Wordings:
    """Check that a kind of wordings exists, and return it.

    Raises:
        UserError: ``wordings`` is not one of :data:`WORDINGS`.
    """
    for known in WORDINGS:
        if wordings == known:
            return known
    raise UserError(f"wordings {wordings!r} is not known; choose one of {list(WORDINGS)}")


def on_goal_pad(scene: Scene, now: Snapshot) -> bool:
    """Check that the target's centre is near the goal pad's centre, and above the table.

    An arm that presses an object into the table can drive it through.
    """
    pad = scene.goal_pad
    x, y, z = now.positions[scene.target]
    return bool(math.hypot(x - pad.x, y - pad.y) < PAD_TOLERANCE and z > 0)


def rests(scene: Scene, now: Snapshot, index: int, floor: float = 0.0) -> bool:
    """Check that an object stands still on a surface at height ``floor`` [m]."""
    above = now.positions[index, 2] - floor
    low = 0 < above < scene.things[index].height / 2 + _RESTING_HEIGHT
    return bool(low and now.speeds[index] < _RESTING_SPEED)
