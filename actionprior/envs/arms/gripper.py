"""Base class of the grippers.

Holding is simplified to a fixed constraint of limited force between tool and object, without
deformation or slip. Collisions between a gripper and the object that it holds are disabled, because
they would work against the constraint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from actionprior.envs.arms.robots import Triple
from actionprior.envs.scene.bullet import Bullet

_FORCE = 60.0
"""Largest force of the constraint that holds an object [N]."""


class Gripper(ABC):
    """Base class: the gripper of one arm.

    Args:
        bullet: The simulator.
        arm: Body id of the arm.
        links: Links that collide. The first one is the tool, which holds objects.
        things: Body ids of the objects.

    Attributes:
        held: Index of the held object, or None.
    """

    def __init__(self, bullet: Bullet, arm: int, links: list[int], things: list[int]) -> None:
        self.held: int | None = None
        self._bullet, self._arm = bullet, arm
        self._holdable = [(body, -1) for body in things]  # body and link of each
        self._links, self._link = links, links[0]
        self._constraint = -1

    @abstractmethod
    def before_step(self, command: float) -> None:
        """Apply the gripper's command before the arm moves. The gripper may release an object."""

    @abstractmethod
    def after_step(self, command: float) -> None:
        """Apply the gripper's command after the arm moved. The gripper may grasp an object."""

    @property
    @abstractmethod
    def reading(self) -> float:
        """State of the gripper in ``observation["state"]``."""

    @property
    @abstractmethod
    def on(self) -> bool:
        """True if the gripper is commanded to hold."""

    def _attach(self, index: int) -> None:
        body, part = self._holdable[index]
        self._constraint = self._constrain(body, part)
        self._bullet.changeConstraint(self._constraint, maxForce=_FORCE)
        for link in self._links:
            self._bullet.setCollisionFilterPair(self._arm, body, link, part, 0)
        self.held = index

    def _constrain(self, body: int, part: int) -> int:
        bullet = self._bullet
        # PyBullet defines constraints at the links' centres of mass: entries 0 and 1 of a link
        # state, not 4 and 5 (the link's frame).
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
            body, part = self._holdable[self.held]
            for link in self._links:
                self._bullet.setCollisionFilterPair(self._arm, body, link, part, 1)
            self.held = None

    def _in_tool_frame(self, point: Triple) -> Triple:
        """Convert a point from world coordinates to the tool's frame [m]."""
        bullet = self._bullet
        frame = bullet.getLinkState(self._arm, self._link)[4:6]
        local, _ = bullet.multiplyTransforms(
            *bullet.invertTransform(*frame), point, (0.0, 0.0, 0.0, 1.0)
        )
        x, y, z = local
        return float(x), float(y), float(z)
