"""Parallel jaws: two fingers that slide together, and hold what both of them touch.

An honest simplification: the fingers really move, collide and push, but once both touch the same
object on their inner faces while they close, it hangs on a fixed constraint with limited force and
the fingers stop; friction and grip force play no part in holding. The jaws let go when they are
commanded wider than the object they hold.
"""

from __future__ import annotations

from actionprior.envs.arms.gripper import Gripper
from actionprior.envs.arms.urdf import JAW_OPENING
from actionprior.envs.scene.bullet import Bullet

_SPEED = 0.25
"""How fast the opening changes [m/s]."""
_MOTOR_FORCE = 20.0
_MOTOR_GAIN = 0.4
_TOUCH = 0.002
"""How near an object must be to a finger's inner face to count as touched [m]."""
_THINNEST = 0.01
"""Fingers closer than this have nothing between them [m]."""
_SLACK = 0.004
"""How much wider than the object the jaws must be commanded to let go [m]."""


class Jaws(Gripper):
    """The jaws of one arm; a command is a wanted opening, 0 closed to 1 open.

    They start open. See :class:`Gripper`.

    Args:
        bullet: the simulator.
        arm: the arm's body.
        link: the tool's link; the fingers' follow it.
        things: the objects' bodies.
        control_hz: control rate [Hz].
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

    def before(self, command: float) -> None:
        """Let go if commanded wider than what is held; else move towards the wanted opening."""
        wanted = command * JAW_OPENING
        self._on = command < 0.5
        if self.held is not None:
            if wanted < self._target + _SLACK:
                return
            self._release()
        change = min(self._step, max(-self._step, wanted - self._target))
        self._target += change
        self._drive()

    def after(self, command: float) -> None:
        """Closing catches an object that both fingers touch, unless something is held."""
        opening = self._opening()
        closing = command * JAW_OPENING < opening - _TOUCH
        if self.held is not None or not closing or opening < _THINNEST:
            return
        for index in range(len(self._parts)):
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
        """Whether the jaws are commanded more closed than open."""
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
        """Whether the inner face of a finger touches an object."""
        finger = self._fingers[side]
        inner = self._bullet.getJointState(self._arm, finger)[0]
        points = self._bullet.getClosestPoints(
            self._arm, self._parts[index][0], _TOUCH, linkIndexA=finger
        )
        # Along the finger's way out from the middle, its inner face comes first.
        way = (1.0, -1.0)[side]
        return any(way * self._local(point[5])[1] < inner + _TOUCH for point in points)
