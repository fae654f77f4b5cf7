"""Vacuum gripper: a suction cup that holds an object that touches its face.

Suction is simplified to a fixed constraint of limited force between cup and object. It is created
when the suction is on and the cup's face comes within 8 mm of an object. Seal, pressure and delay
are not simulated.
"""

from __future__ import annotations

from actionprior.envs.arms.gripper import Gripper
from actionprior.envs.arms.urdf import TOOL_LENGTH
from actionprior.envs.scene.bullet import Bullet

_REACH = 0.008
"""Largest distance at which the cup grasps an object [m]."""
_FACE = 0.004
"""Largest distance behind the tip at which a point still counts as the cup's face [m]."""


class Vacuum(Gripper):
    """The suction cup of one arm. A command above 0.5 switches it on. See :class:`Gripper`.

    Args:
        bullet: The simulator.
        arm: Body id of the arm.
        link: Link of the tool.
        things: Body ids of the objects.
        handle: Body id and link of a drawer that the cup can pull, or None. When the cup holds it,
            ``held`` is the number of objects.
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
        self._holdable += [] if handle is None else [handle]
        self._on = False

    def before_step(self, command: float) -> None:
        """Release the object if the suction is off."""
        self._on = command > 0.5
        if not self._on:
            self._release()

    def after_step(self, command: float) -> None:
        """If the suction is on and nothing is held, grasp the object at the cup's face."""
        if self._on and self.held is None:
            index = self._touched()
            if index is not None:
                self._attach(index)

    @property
    def reading(self) -> float:
        """State of the suction: 0 off, 0.5 on, 1 holding an object."""
        return 1.0 if self.held is not None else 0.5 * self._on

    @property
    def on(self) -> bool:
        """True if the suction is on."""
        return self._on

    def _constrain(self, body: int, part: int) -> int:
        if part < 0:
            return super()._constrain(body, part)
        # A drawer cannot rotate with the tool, so the constraint fixes only the cup's centre and
        # leaves the rotation free.
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
        """Return the index of the object nearest to the cup's face, or None if all are too far."""
        best: tuple[float, int] | None = None
        for i, (body, part) in enumerate(self._holdable):
            points = self._bullet.getClosestPoints(
                self._arm, body, _REACH, linkIndexA=self._link, linkIndexB=part
            )
            for point in points:
                if self._in_tool_frame(point[5])[2] > TOOL_LENGTH - _FACE:
                    best = min(best or (point[8], i), (point[8], i))
        return None if best is None else best[1]
