"""The vacuum gripper: a suction cup that holds what touches its face.

An honest simplification: suction is a fixed constraint between cup and object, made when the cup's
face comes within 8 mm of an object while the suction is on, with a limit on its force. There is no
seal, no pressure, no delay.
"""

from __future__ import annotations

from actionprior.envs.bullet import Bullet, Triple
from actionprior.envs.urdf import TOOL_LENGTH

_REACH = 0.008
"""Largest distance at which the cup catches an object [m]."""
_FACE = 0.004
"""How far behind the tip a point may lie and still count as the cup's face [m]."""
_FORCE = 60.0
"""Largest force of the suction [N]."""


class Vacuum:
    """The suction of one arm.

    Args:
        bullet: the simulator.
        arm: the arm's body.
        link: the tool's link.
        things: the objects' bodies.
        handle: body and link of what slides, and is pulled at, if there is one.

    Attributes:
        held: index of the object on the cup, or None; the number of objects stands for the handle.
    """

    def __init__(
        self,
        bullet: Bullet,
        arm: int,
        link: int,
        things: list[int],
        handle: tuple[int, int] | None = None,
    ) -> None:
        self.held: int | None = None
        self._bullet, self._arm, self._link = bullet, arm, link
        self._parts = [(body, -1) for body in things] + ([] if handle is None else [handle])
        self._constraint = -1

    def switch(self, on: bool) -> None:
        """Switch the suction: off lets go; on catches what touches, unless something is held."""
        if not on:
            self._release()
        elif self.held is None:
            index = self._touched()
            if index is not None:
                self._attach(index)

    def _attach(self, index: int) -> None:
        bullet, (body, part) = self._bullet, self._parts[index]
        # A constraint is told in the links' centres of mass: entries 0 and 1, not 4 and 5.
        tool = bullet.getLinkState(self._arm, self._link)[:2]
        zero = (0.0, 0.0, 0.0)
        if part < 0:
            position, turn = bullet.multiplyTransforms(
                *bullet.invertTransform(*tool), *bullet.getBasePositionAndOrientation(body)
            )
            self._constraint = bullet.createConstraint(
                self._arm, self._link, body, -1, bullet.JOINT_FIXED, zero, position, zero, turn
            )
        else:
            # What slides cannot turn with the tool: the cup's middle holds on, and gives way.
            frame = bullet.getLinkState(self._arm, self._link)[4:6]
            upright = (0.0, 0.0, 0.0, 1.0)
            cup = bullet.multiplyTransforms(*frame, (0.0, 0.0, TOOL_LENGTH), upright)[0]
            inner = bullet.multiplyTransforms(*bullet.invertTransform(*tool), cup, upright)[0]
            slide = bullet.invertTransform(*bullet.getLinkState(body, part)[:2])
            outer = bullet.multiplyTransforms(*slide, cup, upright)[0]
            self._constraint = bullet.createConstraint(
                self._arm, self._link, body, part, bullet.JOINT_POINT2POINT, zero, inner, outer
            )
        bullet.changeConstraint(self._constraint, maxForce=_FORCE)
        # Contact between the two would work against the constraint.
        bullet.setCollisionFilterPair(self._arm, body, self._link, part, 0)
        self.held = index

    def _release(self) -> None:
        if self.held is not None:
            self._bullet.removeConstraint(self._constraint)
            body, part = self._parts[self.held]
            self._bullet.setCollisionFilterPair(self._arm, body, self._link, part, 1)
            self.held = None

    def _touched(self) -> int | None:
        """Index of the object nearest to the face of the cup, if near enough."""
        best: tuple[float, int] | None = None
        for i, (body, part) in enumerate(self._parts):
            points = self._bullet.getClosestPoints(
                self._arm, body, _REACH, linkIndexA=self._link, linkIndexB=part
            )
            for point in points:
                if self._along(point[5]) > TOOL_LENGTH - _FACE:
                    best = min(best or (point[8], i), (point[8], i))
        return None if best is None else best[1]

    def _along(self, point: Triple) -> float:
        """How far along the tool's axis a point lies, from the flange [m]."""
        bullet = self._bullet
        frame = bullet.getLinkState(self._arm, self._link)[4:6]
        local, _ = bullet.multiplyTransforms(
            *bullet.invertTransform(*frame), point, (0.0, 0.0, 0.0, 1.0)
        )
        return float(local[2])
