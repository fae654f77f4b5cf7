"""Conversion of actions in physical units to joint targets: one class per control mode.

Targets are stored here, not read back from the arm. Deltas add to the last target, so tracking lag
does not swallow a policy's small steps, and the same actions always give the same targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from actionprior.envs.arms.kinematics import (
    Array,
    Chain,
    Pose,
    rotation_matrix,
    rotation_vector,
    solve_ik,
)
from actionprior.envs.arms.robots import (
    MAX_JOINT_SPEED,
    MAX_TIP_SPEED,
    MAX_TIP_TURN,
    ControlMode,
    check_control_mode,
)


class Control(ABC):
    """Base class: convert the actions of one arm to joint targets.

    Attributes:
        chain: Kinematics of the arm.
        low: (A,) smallest action, gripper last.
        high: (A,) largest action, gripper last.
        target_q: (n,) current joint target [rad].
    """

    def __init__(self, chain: Chain, low: Array, high: Array) -> None:
        self.chain = chain
        self.low: Array = np.append(low, 0.0)
        self.high: Array = np.append(high, 1.0)
        self.target_q: Array = np.zeros(chain.dof)

    def reset(self, q: Array) -> None:
        """Set the joint target to ``q`` (n,) [rad]."""
        self.target_q = q.copy()

    @property
    def target(self) -> Pose:
        """Current target of the tool's tip, in the base frame."""
        return self.chain.forward(self.target_q)

    @abstractmethod
    def advance(self, motion: Array) -> Array:
        """Apply the motion part (A - 1,) of a clipped action and return ``target_q`` (n,) [rad]."""

    @abstractmethod
    def motion_to(self, goal: Pose, q: Array) -> Array:
        """Compute the motion (A - 1,) that moves the current target to ``goal``.

        Args:
            goal: Wanted pose of the tip, in the base frame.
            q: (n,) joint angles that reach ``goal`` [rad].
        """

    @property
    def free_yaw(self) -> bool:
        """True if the inverse kinematics may choose the rotation about the tool's axis."""
        return True


class JointPosition(Control):
    """Control by absolute joint targets [rad]. Each step is limited to the arm's speed."""

    def __init__(self, chain: Chain, control_hz: int) -> None:
        super().__init__(chain, chain.lower, chain.upper)
        self._limit = MAX_JOINT_SPEED / control_hz

    def advance(self, motion: Array) -> Array:
        """See :class:`Control`."""
        change = np.clip(motion - self.target_q, -self._limit, self._limit)
        self.target_q = self.chain.clip(self.target_q + change)
        return self.target_q

    def motion_to(self, goal: Pose, q: Array) -> Array:
        """See :class:`Control`."""
        return q


class JointDelta(Control):
    """Control by changes of the joint targets [rad]."""

    def __init__(self, chain: Chain, control_hz: int) -> None:
        limit = np.full(chain.dof, MAX_JOINT_SPEED / control_hz)
        super().__init__(chain, -limit, limit)

    def advance(self, motion: Array) -> Array:
        """See :class:`Control`."""
        self.target_q = self.chain.clip(self.target_q + motion)
        return self.target_q

    def motion_to(self, goal: Pose, q: Array) -> Array:
        """See :class:`Control`."""
        return q - self.target_q


class EndEffectorDelta(Control):
    """Control by changes of the tip's target pose.

    A change is a translation [m] and a rotation vector [rad], both in the base frame.
    """

    def __init__(self, chain: Chain, posture: Array, control_hz: int) -> None:
        limit = np.array([MAX_TIP_SPEED] * 3 + [MAX_TIP_TURN] * 3) / control_hz
        super().__init__(chain, -limit, limit)
        self._posture = posture if chain.dof > 6 else None
        self._pose = chain.forward(self.target_q)

    def reset(self, q: Array) -> None:
        """See :class:`Control`."""
        super().reset(q)
        self._pose = self.chain.forward(q)

    @property
    def target(self) -> Pose:
        """See :class:`Control`."""
        return self._pose

    @property
    def free_yaw(self) -> bool:
        """See :class:`Control`."""
        return False

    def advance(self, motion: Array) -> Array:
        """See :class:`Control`. If the target is out of reach, the reached pose replaces it."""
        goal = Pose(
            self._pose.position + motion[:3], rotation_matrix(motion[3:]) @ self._pose.rotation
        )
        self.target_q, error = solve_ik(
            self.chain, self.target_q, goal, posture=self._posture, iterations=10
        )
        # Keeping an unreachable target would make later actions undo it step by step.
        self._pose = goal if error < 2e-3 else self.chain.forward(self.target_q)
        return self.target_q

    def motion_to(self, goal: Pose, q: Array) -> Array:
        """See :class:`Control`."""
        turn = rotation_vector(goal.rotation @ self._pose.rotation.T)
        return np.concatenate([goal.position - self._pose.position, turn])


def make_control(mode: str | ControlMode, chain: Chain, home: Array, control_hz: int) -> Control:
    """Create the control for a mode.

    Speeds are limited (:data:`MAX_JOINT_SPEED` and others), so a higher control rate means shorter
    steps.

    Args:
        mode: Name of the control mode.
        chain: Kinematics of the arm.
        home: (n,) posture that redundant joints are pulled towards [rad].
        control_hz: Control rate [Hz].

    Raises:
        UserError: The mode is unknown.
    """
    match check_control_mode(mode):
        case "joint_position":
            return JointPosition(chain, control_hz)
        case "joint_delta":
            return JointDelta(chain, control_hz)
        case "ee_delta":
            return EndEffectorDelta(chain, home, control_hz)
