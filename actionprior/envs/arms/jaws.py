"""Parallel jaws: two fingers that slide together and hold the object that both of them touch.

Fingers move, collide and push as in reality. Holding is simplified: as soon as the inner faces of
both closing fingers touch the same object, a fixed constraint of limited force holds it, and the
fingers stop. Friction and grip force play no part. The jaws release the object when they are
commanded to open wider than it.
"""

from __future__ import annotations

from actionprior.envs.arms.gripper import Gripper
from actionprior.envs.arms.urdf import JAW_OPENING
from actionprior.envs.scene.bullet import Bullet

_SPEED = 0.25
"""Speed at which the opening changes [m/s]."""
_MOTOR_FORCE = 20.0
_MOTOR_GAIN = 0.4
_TOUCH = 0.002
"""Largest distance from a finger's inner face at which an object counts as touched [m]."""
_THINNEST = 0.01
"""Opening below which no object fits between the fingers [m]."""
_SLACK = 0.004
"""Margin beyond the object's width that a command needs to release it [m]."""


class Jaws(Gripper):
    """The jaws of one arm. A command is the wanted opening, from 0 (closed) to 1 (open).

    The jaws start open. See :class:`Gripper`.

    Args:
        bullet: The simulator.
        arm: Body id of the arm.
        link: Link of the tool. The two fingers' links come directly after it.
        things: Body ids of the objects.
        control_hz: Control rate [Hz].
    """

    def __init__(
        self, bullet: Bullet, arm: int, link: int, things: list[int], control_hz: int
    ) -> None:
        super().__init__(bullet, arm, [link, link + 1, link + 2], things)
        self._step = _SPEED / control_hz
        self._fingers = self._links[1:]
        self._target = JAW_OPENING
        self._on = False
        for finger in self._fingers:
            bullet.resetJointState(arm, finger, JAW_OPENING / 2)
        self._drive()

    def before_step(self, command: float) -> None:
        """Release the object if commanded wider than it, otherwise move to the wanted opening."""
        wanted = command * JAW_OPENING
        self._on = command < 0.5
        if self.held is not None:
            if wanted < self._target + _SLACK:
                return
            self._release()
        change = min(self._step, max(-self._step, wanted - self._target))
        self._target += change
        self._drive()

    def after_step(self, command: float) -> None:
        """When closing with no object held, grasp an object that both fingers touch."""
        opening = self._opening()
        closing = command * JAW_OPENING < opening - _TOUCH
        if self.held is not None or not closing or opening < _THINNEST:
            return
        for index in range(len(self._holdable)):
            if all(self._touches(side, index) for side in (0, 1)):
                self._attach(index)
                self._target = opening
                self._drive()
                return

    @property
    def reading(self) -> float:
        """Measured distance between the fingers' inner faces [m]."""
        return min(JAW_OPENING, max(0.0, self._opening()))

    @property
    def on(self) -> bool:
        """True if the jaws are commanded more closed than open."""
        return self._on

    def _opening(self) -> float:
        states = self._bullet.getJointStates(self._arm, self._fingers)
        return float(sum(state[0] for state in states))

    def _drive(self) -> None:
        for finger in self._fingers:
            self._bullet.setJointMotorControl2(
                self._arm,
                finger,
                self._bullet.POSITION_CONTROL,
                targetPosition=self._target / 2,
                force=_MOTOR_FORCE,
                positionGain=_MOTOR_GAIN,
            )

    def _touches(self, side: int, index: int) -> bool:
        """Check whether the inner face of a finger touches an object."""
        finger = self._fingers[side]
        inner = self._bullet.getJointState(self._arm, finger)[0]
        points = self._bullet.getClosestPoints(
            self._arm, self._holdable[index][0], _TOUCH, linkIndexA=finger
        )
        # Only the inner face counts: the part of the finger nearest to the middle of the jaws.
        sign = (1.0, -1.0)[side]
        return any(sign * self._in_tool_frame(point[5])[1] < inner + _TOUCH for point in points)
