"""What a task is: how it draws its scene, says its instruction, and judges success."""

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
"""``one``: always the first; ``train``: any but the held-out ones; ``held_out``: only those."""

PAD_TOLERANCE = 0.04
"""Largest distance of an object's centre from the pad's centre, in the plane [m]."""

_RESTING_HEIGHT = 0.01
"""How far above its place an object's bottom may be and still count as standing there [m]."""
_RESTING_SPEED = 0.05
"""Speed below which an object rests [m/s]."""


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
        held: index of the object that the first arm holds, or None; the number of objects stands
            for the drawer.
        suction: whether the first arm's tool is commanded to hold.
        hands: the tools of all arms, the first arm's too.
        time: since the reset [s].
        opening: how far the scene's drawer is open [m]; 0 where there is none.
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
    """One task; the state that it keeps lasts one episode.

    Attributes:
        name: short name.
        pads: how many pads its scene has.
        arms: how many arms it takes.
        cup: whether it takes a suction cup: objects stand too close for jaws, or are pulled at.
        seconds: how long an episode may take [s].
        wordings: templates of the instruction, filled with :meth:`words`; the first one is used
            unless others are asked for.
        held_out_wordings: templates that no demonstration uses, to test on.
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
        """Whether a robot has as many arms as the task takes, and grippers that it can do with."""
        able = not cls.cup or all(arm.gripper == "vacuum" for arm in robot.arms)
        return able and len(robot.arms) == cls.arms

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw a scene with target and goal."""
        return draw_scene(rng, pads=self.pads, accept=self.accepts)

    def accepts(self, scene: Scene) -> bool:
        """Whether the places drawn make a fair instance of the task."""
        return True

    def reset(self) -> None:
        """Forget the last episode."""
        return

    def words(self, scene: Scene) -> dict[str, str]:
        """What the templates' fields stand for in ``scene``: here ``target`` and ``goal``."""
        goal = {} if scene.goal is None else {"goal": scene.goal_pad.color}
        return {"target": scene.target_thing.label, **goal}

    def instruction(self, scene: Scene, wording: str | None = None) -> str:
        """The instruction for ``scene``, in ``wording`` (None: the first of the task's)."""
        return (wording or self.wordings[0]).format(**self.words(scene))

    def draw_wording(self, wordings: Wordings, rng: np.random.Generator) -> str:
        """One of the templates that ``wordings`` allows.

        Raises:
            UserError: ``wordings`` is not known, or the task has none of them.
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
        """Colour that the scene's lamp shows ``time`` seconds after reset; None: it is dark."""
        return None

    @abstractmethod
    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """Whether the task is done; asked once after every step."""


def check_wordings(wordings: str) -> Wordings:
    """Give ``wordings`` back as :data:`Wordings`.

    Raises:
        UserError: it is none.
    """
    for known in WORDINGS:
        if wordings == known:
            return known
    raise UserError(f"wordings {wordings!r} is not known; choose one of {list(WORDINGS)}")


def on_goal_pad(scene: Scene, now: Snapshot) -> bool:
    """Whether the target's centre is near the goal pad's."""
    pad = scene.goal_pad
    x, y, _ = now.positions[scene.target]
    return bool(math.hypot(x - pad.x, y - pad.y) < PAD_TOLERANCE)


def rests(scene: Scene, now: Snapshot, index: int, floor: float = 0.0) -> bool:
    """Whether an object stands still at height ``floor`` [m]."""
    low = now.positions[index, 2] < floor + scene.things[index].height / 2 + _RESTING_HEIGHT
    return bool(low and now.speeds[index] < _RESTING_SPEED)
