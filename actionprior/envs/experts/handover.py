"""Plan of the two-arm task: the right arm gives, the left arm takes and places."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.kinematics import TOOL_DOWN, Array
from actionprior.envs.experts.plan import Aim, Plan, funnel
from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks import Hand, Snapshot

_LEFT, _RIGHT = 0, 1
_DOWN: Array = TOOL_DOWN[:, 2]
_TO_LEFT: Array = np.array([0.0, 1.0, 0.0])
"""Direction from the right arm to the left arm."""
_MEETING_HEIGHT = 0.20
_TRAVEL = 0.09
"""Smallest height of a carried object's bottom before it moves sideways [m]."""
_WAIT = 0.18
"""Height at which an idle arm waits [m]."""
_STAND_OFF = 0.06
"""Distance from the object's face at which the taker aligns its tool [m]."""


class HandoverPlan(Plan):
    """Pick up the object, meet in the middle with horizontal tools, take it over, and place it.

    When the arms meet, their tools point at each other with the object in between. The giver's cup
    holds its top, the taker's cup its bottom. This works for all shapes of the suite at any yaw.
    The object is placed upside down.
    """

    def __init__(self) -> None:
        self._placed = False

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        return self.aims(scene, now)[_LEFT]

    def aims(self, scene: Scene, now: Snapshot) -> tuple[Aim, ...]:
        """See :class:`Plan`."""
        taken = now.hands[_LEFT].held == scene.target
        given = now.hands[_RIGHT].held == scene.target
        if given:
            return self._take(scene, now), self._give(scene, now, taken)
        right = _leave(now.hands[_RIGHT], -1.0)
        if taken:
            return self._place(scene, now), right
        here = now.positions[scene.target]
        pad = scene.goal_pad
        if self._placed and math.hypot(here[0] - pad.x, here[1] - pad.y) < 0.04:
            return _leave(now.hands[_LEFT], 1.0), right
        self._placed = False
        # The arm on the object's side picks it up, also after a drop.
        if here[1] < 0.0:
            return _leave(now.hands[_LEFT], 1.0), _pick(scene, now, now.hands[_RIGHT])
        return _pick(scene, now, now.hands[_LEFT]), right

    def _give(self, scene: Scene, now: Snapshot, taken: bool) -> Aim:
        """Lift the object, present it at the meeting place, and hold it until the taker does."""
        hand, height = now.hands[_RIGHT], scene.target_thing.height
        here = now.positions[scene.target]
        if hand.direction[1] < 0.3 and here[2] - height / 2 < _TRAVEL:
            up = np.array([hand.tip[0], hand.tip[1], height + _TRAVEL + 0.03])
            return Aim(up, suction=True, direction=_DOWN)
        tip = _meeting(scene) - _TO_LEFT * (height / 2)
        return Aim(tip, suction=not taken, direction=_TO_LEFT)

    def _take(self, scene: Scene, now: Snapshot) -> Aim:
        """Align the tool with the object, and approach it when it is at the meeting place."""
        hand, giver = now.hands[_LEFT], now.hands[_RIGHT]
        half = scene.target_thing.height / 2
        here, meeting = now.positions[scene.target], _meeting(scene)
        face = here + _TO_LEFT * half
        ready = float(np.linalg.norm(here - meeting)) < 0.015 and giver.direction[1] > 0.995
        aligned = math.hypot(hand.tip[0] - face[0], hand.tip[2] - face[2]) < 0.01
        if ready and aligned and hand.direction[1] < -0.99:
            near = hand.tip[1] - face[1] < 0.03
            return Aim(face - _TO_LEFT * 0.001, suction=near, speed=0.6, direction=-_TO_LEFT)
        return Aim(meeting + _TO_LEFT * (half + _STAND_OFF), direction=-_TO_LEFT)

    def _place(self, scene: Scene, now: Snapshot) -> Aim:
        """Move away from the giver, lower the object onto the pad, and release it."""
        hand, giver = now.hands[_LEFT], now.hands[_RIGHT]
        pad, height = scene.goal_pad, scene.target_thing.height
        x, y, z = now.positions[scene.target]
        bottom = float(z) - height / 2
        if math.hypot(x - pad.x, y - pad.y) < 0.015 and bottom < 0.008:
            self._placed = True
            return _leave(hand, 1.0)
        if giver.tip[1] > y - height / 2 - 0.02 and y < 0.03:
            return Aim(hand.tip, suction=True, direction=hand.direction)
        down = hand.direction[2] < -0.995
        if not down or (math.hypot(x - pad.x, y - pad.y) > 0.05 and bottom < 0.05):
            tip = np.array([pad.x, pad.y, height + _TRAVEL])
            return Aim(tip, suction=True, direction=_DOWN)
        offset = hand.tip - (x, y, bottom)
        goal = funnel(hand.tip - offset, (pad.x, pad.y, 0.003)) + offset
        return Aim(goal, suction=True, direction=_DOWN)


def _meeting(scene: Scene) -> Array:
    """Compute where the object's centre is at the handover [m]."""
    x = 0.5 * (scene.target_thing.x + scene.goal_pad.x)
    return np.array([min(0.06, max(-0.06, x)), 0.0, _MEETING_HEIGHT])


def _pick(scene: Scene, now: Snapshot, hand: Hand) -> Aim:
    """Descend on the target, and switch the suction on just before the cup touches it."""
    x, y, z = now.positions[scene.target]
    top = z + scene.target_thing.height / 2
    near = math.hypot(hand.tip[0] - x, hand.tip[1] - y) < 0.02 and hand.tip[2] < top + 0.05
    goal = funnel(hand.tip, (x, y, top - 0.001))
    return Aim(goal, suction=near, direction=_DOWN)


def _leave(hand: Hand, side: float) -> Aim:
    """Back away from the object, then wait on the arm's side, where y has the sign of ``side``."""
    if abs(hand.direction[1]) > 0.7 and side * hand.tip[1] < 0.09:
        back = hand.tip - hand.direction * 0.10
        return Aim(back, direction=hand.direction)
    y = side * min(0.18, max(0.12, side * float(hand.tip[1])))
    return Aim(np.array([hand.tip[0], y, _WAIT]), direction=_DOWN)
