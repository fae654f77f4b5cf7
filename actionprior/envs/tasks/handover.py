"""Task for two arms."""

from __future__ import annotations

from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks.base import Snapshot, Task, on_goal_pad, rests

_SIDE = 0.10
"""Smallest distance of a handover's target and pad from the middle, along y [m]."""


class HandoverTask(Task):
    """Pick up the target with the right arm, hand it over, and place it with the left arm.

    The target starts at y <= -0.10, out of the left arm's reach. The pad is at y >= 0.10, out of
    the right arm's reach. Success depends only on where the target ends.
    """

    name = "handover"
    pads = 2
    arms = 2
    seconds = 10.0
    wordings = (
        "hand the {target} over and put it on the {goal} pad",
        "pass the {target} across and place it on the {goal} pad",
        "give the {target} to the other arm, which puts it on the {goal} pad",
    )
    held_out_wordings = (
        "take the {target} to the {goal} pad with both arms",
        "bring the {target} from the right to the {goal} pad",
    )

    def accepts(self, scene: Scene) -> bool:
        """Check that target and pad are on opposite sides of the table."""
        return scene.target_thing.y <= -_SIDE and scene.goal_pad.y >= _SIDE

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        let_go = all(hand.held is None for hand in now.hands)
        return let_go and rests(scene, now, scene.target) and on_goal_pad(scene, now)
