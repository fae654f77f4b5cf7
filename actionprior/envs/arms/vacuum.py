"""The vacuum gripper: a suction cup that holds what touches its face.

An honest simplification: suction is a fixed constraint between cup and object, made when the cup's
face comes within 8 mm of an object while the suction is on, with a limit on its force. There is no
seal, no pressure, no delay.
"""

from __future__ import annotations

from actionprior.envs.arms.gripper import Gripper
from actionprior.envs.arms.urdf import TOOL_LENGTH
from actionprior.envs.scene.bullet import Bullet

_REACH = 0.008
"""Largest distance at which the cup catches an object [m]."""
_FACE = 0.004
"""How far behind the tip a point may lie and still count as the cup's face [m]."""


class Vacuum(Gripper):
    """The suction of one arm; a command above 0.5 switches it on. See :class:`Gripper`.

    Args:
        bullet: the simulator.
        arm: the arm's body.
        link: the tool's link.
        things: the objects' bodies.
        handle: body and link of what slides, and is pulled at, if there is one; the number of
            objects stands for it in ``held``.
    """

    def __init__(
        self,
        bullet: Bullet,
        arm: int,
        link: int,
        things: list[int],
        handle: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(bullet, arm, [link], things)
        self._parts += [] if handle is None else [handle]
        self._on = False

    def before(self, command: float) -> None:
        """Off lets go."""
        self._on = command > 0.5
        if not self._on:
            self._release()

    def after(self, command: float) -> None:
        """On catches what touches the cup's face, unless something is held."""
        if self._on and self.held is None:
            index = self._touched()
            if index is not None:
                self._attach(index)

    @property
    def reading(self) -> float:
        """0 off, 0.5 on, 1 an object is held."""
        return 1.0 if self.held is not None else 0.5 * self._on

    @property
    def on(self) -> bool:
        """Whether the suction is on."""
        return self._on

    def _constrain(self, body: int, part: int) -> int:
        if part < 0:
            return super()._constrain(body, part)
        # What slides cannot turn with the tool: the cup's middle holds on, and gives way.
        bullet = self._bullet
        zero, upright = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
        tool, frame = (bullet.getLinkState(self._arm, self._link)[i : i + 2] for i in (0, 4))
        cup = bullet.multiplyTransforms(*frame, (0.0, 0.0, TOOL_LENGTH), upright)[0]
        inner = bullet.multiplyTransforms(*bullet.invertTransform(*tool), cup, upright)[0]
        slide = bullet.invertTransform(*bullet.getLinkState(body, part)[:2])
        outer = bullet.multiplyTransforms(*slide, cup, upright)[0]
        return int(
            bullet.createConstraint(
                self._arm, self._link, body, part, bullet.JOINT_POINT2POINT, zero, inner, outer
            )
        )

    def _touched(self) -> int | None:
        """Index of the object nearest to the face of the cup, if near enough."""
        best: tuple[float, int] | None = None
        for i, (body, part) in enumerate(self._parts):
            points = self._bullet.getClosestPoints(
                self._arm, body, _REACH, linkIndexA=self._link, linkIndexB=part
            )
            for point in points:
                if self._local(point[5])[2] > TOOL_LENGTH - _FACE:
                    best = min(best or (point[8], i), (point[8], i))
        return None if best is None else best[1]
