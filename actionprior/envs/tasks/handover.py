"""The task for two arms."""

from __future__ import annotations

from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks.base import Snapshot, Task, on_goal_pad, rests

_SIDE = 0.10
"""How far from the middle a handover's target and pad lie at least [m]."""


class Handover(Task):
    """Two arms: the right one picks the target up and hands it over, the left one places it.

    The target starts at y <= -0.10, out of the left arm's reach, and the pad lies at y >= 0.10,
    out of the right arm's. How it gets across is not judged.
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
        """Target and pad lie on the two sides."""
        return scene.target_thing.y <= -_SIDE and scene.goal_pad.y >= _SIDE

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        let_go = all(hand.held is None for hand in now.hands)
        return let_go and rests(scene, now, scene.target) and on_goal_pad(scene, now)
