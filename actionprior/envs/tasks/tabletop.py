"""Short tasks: reach, push, lift, place."""

from __future__ import annotations

import math

from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks.base import Snapshot, Task, on_goal_pad, rests

REACH_HEIGHT = 0.03
"""Height above the target's top to which ``reach`` brings the tip [m]."""
REACH_TOLERANCE = 0.025
"""Largest distance of the tip from that place [m]."""
LIFT_HEIGHT = 0.10
"""Height of the object's bottom at which ``lift`` succeeds [m]."""

_PUSH_DISTANCE = (0.107, 0.18)
"""Smallest and largest distance of a push [m]. The longer a push, the more often an object that is
pushed at one point slips off sideways."""
_PUSH_CLEARANCE = 0.08
"""Smallest distance of other objects from the line of a push [m]."""
_PUSH_RUN_UP = 0.07
"""Distance behind the object at which that line starts [m]."""
_PUSH_NEAREST = -0.16
"""Smallest x at which a push may start [m]. The longer arms cannot fold to reach closer places."""


class ReachTask(Task):
    """Bring the tool's tip to just above the target and stay for two steps."""

    name = "reach"
    wordings = (
        "reach the {target}",
        "move to the {target}",
        "go to just above the {target}",
    )
    held_out_wordings = (
        "approach the {target}",
        "hover over the {target}",
    )

    def __init__(self) -> None:
        self._steps = 0

    def reset(self) -> None:
        """See :class:`Task`."""
        self._steps = 0

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        x, y, z = now.positions[scene.target]
        above = (x, y, z + scene.target_thing.height / 2 + REACH_HEIGHT)
        near = math.dist(above, now.tip) < REACH_TOLERANCE
        self._steps = self._steps + 1 if near else 0
        return self._steps >= 2


class PushTask(Task):
    """Push the target to a pad. An episode in which the gripper held it cannot succeed."""

    name = "push"
    pads = 2
    wordings = (
        "push the {target} to the {goal} pad",
        "slide the {target} to the {goal} pad",
        "move the {target} to the {goal} pad by pushing it",
    )
    held_out_wordings = (
        "shove the {target} onto the {goal} pad",
        "nudge the {target} along the table to the {goal} pad",
    )

    def __init__(self) -> None:
        self._cheated = False

    def reset(self) -> None:
        """See :class:`Task`."""
        self._cheated = False

    def accepts(self, scene: Scene) -> bool:
        """Check that the push is 11 to 18 cm long, reachable, and free of other objects."""
        thing, pad = scene.target_thing, scene.goal_pad
        way = math.hypot(pad.x - thing.x, pad.y - thing.y)
        if not _PUSH_DISTANCE[0] <= way <= _PUSH_DISTANCE[1]:
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

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        self._cheated = self._cheated or now.held == scene.target
        return not self._cheated and on_goal_pad(scene, now)


class LiftTask(Task):
    """Lift the target, and no other object, by 10 cm."""

    name = "lift"
    wordings = (
        "lift the {target}",
        "pick up the {target}",
        "take the {target} off the table",
    )
    held_out_wordings = (
        "raise the {target}",
        "hold the {target} up",
    )

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        bottom = now.positions[scene.target, 2] - scene.target_thing.height / 2
        return now.held == scene.target and bool(bottom >= LIFT_HEIGHT)


class PlaceTask(Task):
    """Pick up the target, put it on the pad, and release it."""

    name = "place"
    pads = 2
    wordings = (
        "place the {target} on the {goal} pad",
        "put the {target} on the {goal} pad",
        "set the {target} down on the {goal} pad",
    )
    held_out_wordings = (
        "drop the {target} off at the {goal} pad",
        "carry the {target} over to the {goal} pad",
    )

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        return now.held is None and rests(scene, now, scene.target) and on_goal_pad(scene, now)


def _distance_to_segment(
    point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]
) -> float:
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((point[0] - start[0]) * dx + (point[1] - start[1]) * dy) / (dx * dx + dy * dy)
    along = min(1.0, max(0.0, along))
    return math.hypot(point[0] - start[0] - along * dx, point[1] - start[1] - along * dy)
