"""What grippers share: holding is a fixed constraint with limited force between tool and object.

An honest simplification: there is no deformation, no slip, and contact between a gripper and what
it holds is switched off, for it would work against the constraint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from actionprior.envs.scene.bullet import Bullet, Triple

_FORCE = 60.0
"""Largest force of a hold [N]."""


class Gripper(ABC):
    """The gripper of one arm.

    Args:
        bullet: the simulator.
        arm: the arm's body.
        links: the links that collide; the first is the tool, which holds.
        things: the objects' bodies.

    Attributes:
        held: index of the held object, or None.
    """

    def __init__(self, bullet: Bullet, arm: int, links: list[int], things: list[int]) -> None:
        self.held: int | None = None
        self._bullet, self._arm = bullet, arm
        self._parts = [(body, -1) for body in things]  # body and link of what can be held
        self._links, self._link = links, links[0]
        self._constraint = -1

    @abstractmethod
    def before(self, command: float) -> None:
        """Take the gripper's part of an action before the arm moves: it may let go."""

    @abstractmethod
    def after(self, command: float) -> None:
        """The same after the arm moved: it may catch what it touches now."""

    @property
    @abstractmethod
    def reading(self) -> float:
        """What ``observation["state"]`` tells of the gripper."""

    @property
    @abstractmethod
    def on(self) -> bool:
        """Whether it is commanded to hold."""

    def _attach(self, index: int) -> None:
        body, part = self._parts[index]
        self._constraint = self._constrain(body, part)
        self._bullet.changeConstraint(self._constraint, maxForce=_FORCE)
        for link in self._links:
            self._bullet.setCollisionFilterPair(self._arm, body, link, part, 0)
        self.held = index

    def _constrain(self, body: int, part: int) -> int:
        bullet = self._bullet
        # A constraint is told in the links' centres of mass: entries 0 and 1, not 4 and 5.
        tool = bullet.getLinkState(self._arm, self._link)[:2]
        position, turn = bullet.multiplyTransforms(
            *bullet.invertTransform(*tool), *bullet.getBasePositionAndOrientation(body)
        )
        zero = (0.0, 0.0, 0.0)
        return int(
            bullet.createConstraint(
                self._arm, self._link, body, part, bullet.JOINT_FIXED, zero, position, zero, turn
            )
        )

    def _release(self) -> None:
        if self.held is not None:
            self._bullet.removeConstraint(self._constraint)
            body, part = self._parts[self.held]
            for link in self._links:
                self._bullet.setCollisionFilterPair(self._arm, body, link, part, 1)
            self.held = None

    def _local(self, point: Triple) -> Triple:
        """A point of the world in the tool's frame [m]."""
        bullet = self._bullet
        frame = bullet.getLinkState(self._arm, self._link)[4:6]
        local, _ = bullet.multiplyTransforms(
            *bullet.invertTransform(*frame), point, (0.0, 0.0, 0.0, 1.0)
        )
        x, y, z = local
        return float(x), float(y), float(z)
