"""Kinematics of serial chains in NumPy: forward kinematics, Jacobian, damped least squares.

PyBullet's inverse kinematics is not used, because it depends on hidden solver state and would break
reproducibility. Axes: ``n`` joints. Lengths are in metres, angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

type Array = NDArray[np.float64]

TOOL_DOWN: Array = np.diag([1.0, -1.0, -1.0])
"""Rotation of a tool whose z axis points straight down, without yaw."""

_MAX_STEP = 0.3
"""Largest change of a joint angle in one step of the inverse kinematics [rad]."""
_DAMPING = 0.01
_ROTATION_WEIGHT = 0.25
"""Metres that one radian of orientation error counts as."""


class Pose(NamedTuple):
    """A rigid pose: position (3,) [m] and rotation matrix (3, 3)."""

    position: Array
    rotation: Array


class IKSolution(NamedTuple):
    """Joint angles (n,) [rad] and the remaining weighted pose error [m]."""

    q: Array
    error: float


@dataclass(frozen=True, eq=False)
class Chain:
    """A serial chain of revolute joints with a tool at its end.

    Args:
        origins: (n, 4, 4) pose of each joint in the previous joint's frame, at angle zero.
        axes: (n, 3) unit rotation axis of each joint, in the joint's frame.
        lower: (n,) lower limits [rad].
        upper: (n,) upper limits [rad].
        effort: (n,) largest torques [N m].
        tool: (4, 4) pose of the tool's tip in the last joint's frame.
    """

    origins: Array
    axes: Array
    lower: Array
    upper: Array
    effort: Array
    tool: Array

    def __post_init__(self) -> None:
        """Precompute the constant terms of Rodrigues' formula."""
        cross = np.zeros((len(self.axes), 3, 3))
        x, y, z = self.axes.T
        cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -z, y, -x
        cross -= cross.transpose(0, 2, 1)
        object.__setattr__(self, "_cross", cross)
        object.__setattr__(self, "_cross2", cross @ cross)

    _cross: Array = field(init=False, repr=False)
    _cross2: Array = field(init=False, repr=False)

    @property
    def dof(self) -> int:
        """Number of joints."""
        return len(self.axes)

    def frames(self, q: Array) -> Array:
        """Compute the poses (n + 1, 4, 4) of all joints (after rotation) and of the tool's tip."""
        local = self.origins.copy()
        sin, cos = np.sin(q)[:, None, None], np.cos(q)[:, None, None]
        rotation = np.eye(3) + sin * self._cross + (1.0 - cos) * self._cross2
        local[:, :3, :3] = self.origins[:, :3, :3] @ rotation
        frames = np.empty((self.dof + 1, 4, 4))
        frame = frames[0] = local[0]
        for i in range(1, self.dof):
            frame = frames[i] = frame @ local[i]
        frames[-1] = frame @ self.tool
        return frames

    def forward(self, q: Array) -> Pose:
        """Compute the pose of the tool's tip in the base frame at joint angles ``q`` (n,) [rad]."""
        tip = self.frames(q)[-1]
        return Pose(tip[:3, 3], tip[:3, :3])

    def jacobian(self, frames: Array) -> Array:
        """Compute the tip's geometric Jacobian (6, n), linear rows first, from ``frames(q)``."""
        axes: Array = np.einsum("nij,nj->in", frames[:-1, :3, :3], self.axes)
        arms = frames[-1, :3, 3, None] - frames[:-1, :3, 3].T
        return np.vstack([_cross(axes, arms), axes])

    def clip(self, q: Array) -> Array:
        """Clip the angles ``q`` (n,) to the joint limits [rad]."""
        return np.asarray(np.minimum(np.maximum(q, self.lower), self.upper))


def solve_ik(
    chain: Chain,
    start: Array,
    goal: Pose,
    *,
    free_yaw: bool = False,
    posture: Array | None = None,
    iterations: int = 20,
    tolerance: float = 3e-4,
) -> IKSolution:
    """Solve the inverse kinematics by damped least squares.

    Args:
        chain: Kinematics of the arm.
        start: (n,) joint angles to start from [rad].
        goal: Wanted pose of the tip in the base frame.
        free_yaw: Ignore the rotation about the tool's axis.
        posture: (n,) angles that redundant joints are pulled towards [rad].
        iterations: Maximum number of steps.
        tolerance: Weighted error at which to stop [m].

    Returns:
        The angles reached, within the limits, and the remaining error, which the caller must check.
    """
    q = chain.clip(np.asarray(start, dtype=np.float64))
    weight = np.array([1.0] * 3 + [_ROTATION_WEIGHT] * 3)
    error = np.inf
    for iteration in range(iterations + 1):
        frames = chain.frames(q)
        tip = frames[-1]
        twist = np.empty(6)
        twist[:3] = goal.position - tip[:3, 3]
        axis = tip[:3, 2]
        if free_yaw:
            twist[3:] = _cross(axis, goal.rotation[:, 2])
        else:
            twist[3:] = rotation_vector(goal.rotation @ tip[:3, :3].T)
        twist *= weight
        error = float(np.sqrt(twist @ twist))
        if error < tolerance or iteration == iterations:
            break
        jacobian = chain.jacobian(frames)
        if free_yaw:
            jacobian[3:] -= np.outer(axis, axis @ jacobian[3:])
        jacobian *= weight[:, None]
        gram = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        if posture is None:
            step = jacobian.T @ np.linalg.solve(gram, twist)
        else:
            lean = 0.1 * (posture - q)
            step = lean + jacobian.T @ np.linalg.solve(gram, twist - jacobian @ lean)
        largest = float(np.abs(step).max())
        q = chain.clip(q + step * min(1.0, _MAX_STEP / max(largest, 1e-9)))
    return IKSolution(q, error)


def rotation_vector(rotation: Array) -> Array:
    """Convert a rotation matrix (3, 3) to a rotation vector (3,) [rad], for angles below π."""
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sin = 0.5 * float(np.sqrt(skew @ skew))
    cos = 0.5 * (float(np.trace(rotation)) - 1.0)
    if sin < 1e-9:
        return 0.5 * skew
    return skew * (0.5 * float(np.arctan2(sin, cos)) / sin)


def rotation_matrix(vector: Array) -> Array:
    """Convert a rotation vector (3,) [rad] to a rotation matrix (3, 3) by Rodrigues' formula."""
    angle = float(np.sqrt(vector @ vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)


def _cross(a: Array, b: Array) -> Array:
    """Compute cross products over the first axis, ten times faster than ``np.cross``."""
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )
