"""From an action in physical units to joint targets: one class for each control mode.

Targets are held here, not read back from the arm: deltas add to the last target, so a policy's
small steps are not lost to tracking lag, and the same actions always give the same targets.
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
    """Turns actions into joint targets for one chain.

    Attributes:
        chain: the arm.
        low: (A,) smallest action, gripper last.
        high: (A,) largest action.
        target_q: (n,) the held joint target [rad].
    """

    def __init__(self, chain: Chain, low: Array, high: Array) -> None:
        self.chain = chain
        self.low: Array = np.append(low, 0.0)
        self.high: Array = np.append(high, 1.0)
        self.target_q: Array = np.zeros(chain.dof)

    def reset(self, q: Array) -> None:
        """Hold ``q`` (n,) [rad]."""
        self.target_q = q.copy()

    @property
    def target(self) -> Pose:
        """The held target of the tool's tip, in the base frame."""
        return self.chain.forward(self.target_q)

    @abstractmethod
    def advance(self, motion: Array) -> Array:
        """Take the motion part (A - 1,) of a clipped action; gives ``target_q`` (n,) [rad]."""

    @abstractmethod
    def motion_to(self, goal: Pose, q: Array) -> Array:
        """The motion (A - 1,) that moves the held target to ``goal``, or to its solution ``q``."""

    @property
    def free_yaw(self) -> bool:
        """Whether the rotation about the tool's axis is left to the inverse kinematics."""
        return True


class JointPosition(Control):
    """Absolute joint targets [rad]; a step moves them no further than the arm can follow."""

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
    """Changes of the joint targets [rad]."""

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
    """Changes of the tip's target pose: translation [m] and rotation vector [rad], base axes."""

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
        """See :class:`Control`; an unreachable target is replaced by what was reached."""
        goal = Pose(
            self._pose.position + motion[:3], rotation_matrix(motion[3:]) @ self._pose.rotation
        )
        self.target_q, error = solve_ik(
            self.chain, self.target_q, goal, posture=self._posture, iterations=10
        )
        # Holding a target out of reach would have to be undone step by step later.
        self._pose = goal if error < 2e-3 else self.chain.forward(self.target_q)
        return self.target_q

    def motion_to(self, goal: Pose, q: Array) -> Array:
        """See :class:`Control`."""
        turn = rotation_vector(goal.rotation @ self._pose.rotation.T)
        return np.concatenate([goal.position - self._pose.position, turn])


def make_control(mode: str | ControlMode, chain: Chain, home: Array, control_hz: int) -> Control:
    """The control of that mode for ``chain``; ``home`` (n,) [rad] is the posture leant to.

    Speeds are limited (:data:`MAX_JOINT_SPEED` and others), so steps are the shorter the higher
    the control rate [Hz] is.

    Raises:
        UserError: the mode is not known.
    """
    match check_control_mode(mode):
        case "joint_position":
            return JointPosition(chain, control_hz)
        case "joint_delta":
            return JointDelta(chain, control_hz)
        case "ee_delta":
            return EndEffectorDelta(chain, home, control_hz)
