"""Scripted experts for gym-aloha's two tasks: waypoints of both grippers, from the objects' poses.

The authors of ACT describe such experts (Zhao et al., "Learning Fine-Grained Bimanual Manipulation
with Low-Cost Hardware", RSS 2023, appendix). At reset, inverse kinematics turns each waypoint into
joint angles, and the joints move from one to the next along a smooth curve.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.benchmarks.aloha import AlohaEnv
from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark

Vector = NDArray[np.float64]

_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
_OPEN, _CLOSED, _START_OPENING = 1.0, 0.0, 0.1
_DOWN = math.radians(60)
"""Pitch of a gripper that picks up an object from the table [rad]."""
_BELOW_CENTRE = np.array([0, 0, -0.002])
"""Vector from an object's centre to the tip when a gripper closes (3,) [m]."""
_REACH_PAST = 0.01
"""Distance by which the tip reaches past the centre of peg and socket [m]. Fingers widen towards
the wrist, so that they then press on both sides of the centre, and the parts do not tilt."""
_HALF_CUBE, _HALF_PEG, _HALF_SOCKET = 0.02, 0.01, 0.022
"""Heights of the objects' centres above the table [m]."""
_TOUCH = 0.05
"""Distance of each part's centre from the meeting point when the peg touches the pin [m]."""


class Waypoint(NamedTuple):
    """Where a gripper should be at a time."""

    seconds: float
    """Time since the beginning of the episode."""
    tip: Vector
    """Point between the fingertips (3,): x, y, z in the world [m]."""
    rotation: Vector
    """Rotation of the gripper in the world (4,), a quaternion with w first. Its x axis points from
    the wrist to the fingertips, and the fingers move along its y axis."""
    opening: float
    """Opening of the gripper, 0 (closed) to 1."""


class Waypoints(NamedTuple):
    """Waypoints of both grippers."""

    left: list[Waypoint]
    right: list[Waypoint]


class WaypointExpert:
    """Scripted expert of the environment's task. It knows the objects' initial poses.

    Each seed draws its own speed, heights and meeting point, so that demonstrations differ.

    Args:
        env: An ``AlohaEnv``, wrapped or not.

    Raises:
        BenchmarkError: The environment is not an ``AlohaEnv``.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        bare = env.unwrapped
        if not isinstance(bare, AlohaEnv):
            raise BenchmarkError(f"{bare} is no task of gym-aloha; use the expert of its own suite")
        self._env = bare
        self._plan = _PLANS[bare.task]
        self._actions: NDArray[np.float32] = np.empty((0, 14), np.float32)
        self._step = 0

    def reset(self, seed: int = 0) -> None:
        """Plan the episode. Call this after resetting the environment.

        Raises:
            BenchmarkError: An arm cannot reach a waypoint.
        """
        waypoints = self._plan(self._env.object_poses, np.random.default_rng(seed))
        # A copy, so that planning does not move the arms of the episode.
        physics = self._env.physics.copy(share_model=True)
        arms = [
            _joint_path(physics, side, path, self._env.control_hz)
            for side, path in zip(("left", "right"), waypoints, strict=True)
        ]
        length = max(map(len, arms))
        padded = [np.pad(arm, ((0, length - len(arm)), (0, 0)), mode="edge") for arm in arms]
        self._actions = np.concatenate(padded, axis=1).astype(np.float32)
        self._step = 0

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """Return the next action (14,), joint angles [rad]. ``observation`` is not used.

        Raises:
            BenchmarkError: The expert was not reset.
        """
        if not len(self._actions):
            raise BenchmarkError("reset the expert after its environment, before calling it")
        action: NDArray[np.float32] = self._actions[min(self._step, len(self._actions) - 1)]
        self._step += 1
        return action.copy()


def transfer_waypoints(poses: Vector, rng: np.random.Generator) -> Waypoints:
    """Plan how the right arm lifts the cube and hands it to the left arm.

    The right gripper holds the cube at its sides. The left one is rolled by 90° and takes it at top
    and bottom. Then the right gripper opens, and both arms draw back.

    Args:
        poses: Pose of the cube (1, 7).
        rng: Source of the speed, the height of the lift and the meeting point.
    """
    pace, lift, meet = _draw(rng, height=0.28)
    grasp = np.array([*poses[0, :2], _HALF_CUBE]) + _BELOW_CENTRE
    held = meet + _BELOW_CENTRE
    taken = meet + np.array([-0.006, 0, 0])  # leaves room for the right fingers
    ready = taken + np.array([-0.12, 0, 0])
    down, across = _facing_left(_DOWN), _facing_right(0.0, roll=math.pi / 2)
    right = [
        Waypoint(1.2, grasp + lift, down, _OPEN),
        Waypoint(1.8, grasp, down, _OPEN),
        Waypoint(2.0, grasp, down, _OPEN),
        Waypoint(2.3, grasp, down, _CLOSED),
        Waypoint(2.8, grasp + lift, down, _CLOSED),
        Waypoint(3.8, held, down, _CLOSED),
        Waypoint(5.1, held, down, _CLOSED),
        Waypoint(5.4, held, down, _OPEN),
        Waypoint(6.0, held + np.array([0.1, 0, 0.06]), down, _OPEN),
    ]
    left = [
        Waypoint(2.5, ready, across, _OPEN),
        Waypoint(3.7, ready, across, _OPEN),
        Waypoint(4.4, taken, across, _OPEN),
        Waypoint(4.6, taken, across, _OPEN),
        Waypoint(4.9, taken, across, _CLOSED),
        Waypoint(5.5, taken, across, _CLOSED),
        Waypoint(6.2, ready, across, _CLOSED),
    ]
    return Waypoints(_at_pace(left, pace), _at_pace(right, pace))


def insertion_waypoints(poses: Vector, rng: np.random.Generator) -> Waypoints:
    """Plan how the arms lift peg and socket, align them in the air, and push them together.

    Args:
        poses: Poses of peg and socket (2, 7).
        rng: Source of the speed, the height of the lift and the meeting point.
    """
    pace, lift, meet = _draw(rng, height=0.2)
    peg, socket = poses[:, :3]
    left = _insert(socket, _HALF_SOCKET, -1, _facing_right(_DOWN), lift, meet)
    right = _insert(peg, _HALF_PEG, 1, _facing_left(_DOWN), lift, meet)
    return Waypoints(_at_pace(left, pace), _at_pace(right, pace))


def _insert(
    part: Vector, half: float, side: int, rotation: Vector, lift: Vector, meet: Vector
) -> list[Waypoint]:
    """Waypoints of the arm that holds one part, at the left (-1) or right (1) ``side``."""
    outward = np.array([side, 0, 0])
    from_centre = _BELOW_CENTRE - _REACH_PAST * outward
    grasp = np.array([*part[:2], half]) + from_centre
    apart = meet + 0.12 * outward + from_centre
    inside = meet + (_TOUCH - 0.002) * outward + from_centre
    return [
        Waypoint(1.2, grasp + lift, rotation, _OPEN),
        Waypoint(1.8, grasp, rotation, _OPEN),
        Waypoint(2.0, grasp, rotation, _OPEN),
        Waypoint(2.3, grasp, rotation, _CLOSED),
        Waypoint(2.9, grasp + lift, rotation, _CLOSED),
        Waypoint(4.0, apart, rotation, _CLOSED),
        Waypoint(4.6, apart, rotation, _CLOSED),
        Waypoint(6.0, inside, rotation, _CLOSED),
    ]


class _Drawn(NamedTuple):
    """What differs between two episodes, besides the objects' poses."""

    pace: float
    lift: Vector
    meet: Vector


def _draw(rng: np.random.Generator, height: float) -> _Drawn:
    """Draw the pace, the vector from a grasp to the point above it (3,), and the meeting point."""
    return _Drawn(
        pace=rng.uniform(0.9, 1.1),
        lift=np.array([0, 0, rng.uniform(0.08, 0.12)]),
        meet=np.array([0, 0.5, height]) + rng.uniform(-0.02, 0.02, 3),
    )


_PLANS = {"transfer_cube": transfer_waypoints, "insertion": insertion_waypoints}


def _at_pace(path: list[Waypoint], pace: float) -> list[Waypoint]:
    """Multiply all times by ``pace``."""
    return [waypoint._replace(seconds=waypoint.seconds * pace) for waypoint in path]


def _facing_right(pitch: float, roll: float = 0.0) -> Vector:
    """Rotation of a gripper that points to the right, +x, and down by ``pitch`` [rad]."""
    pitched = np.array([math.cos(pitch / 2), 0, math.sin(pitch / 2), 0])
    return _product(pitched, np.array([math.cos(roll / 2), math.sin(roll / 2), 0, 0]))


def _facing_left(pitch: float, roll: float = 0.0) -> Vector:
    """Rotation of a gripper that points to the left, -x, and down by ``pitch`` [rad]."""
    return _product(np.array([0.0, 0, 0, 1]), _facing_right(pitch, roll))


def _product(p: Vector, q: Vector) -> Vector:
    """Hamilton product of two quaternions (4,) with w first: rotate by ``q``, then by ``p``."""
    w = p[0] * q[0] - p[1:] @ q[1:]
    return np.append(w, p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))


def _joint_path(physics: Any, side: str, path: list[Waypoint], control_hz: int) -> Vector:  # noqa: ANN401  dm_control is untyped
    """Compute an arm's actions (T, 7), one per control step. This moves the arm of ``physics``."""
    kinematics = import_benchmark("dm_control.utils.inverse_kinematics", "aloha")
    names = [f"vx300s_{side}/{joint}" for joint in _JOINTS]
    corners = [np.append(physics.named.data.qpos[names], _START_OPENING)]
    for waypoint in path:
        found = kinematics.qpos_from_site_pose(
            physics,
            f"cali_{side}_site1",
            waypoint.tip,
            waypoint.rotation,
            names,
            tol=1e-6,
            inplace=True,  # the search for the next waypoint starts from these joints
        )
        if not found.success:
            raise BenchmarkError(
                f"the {side} arm cannot reach {waypoint.tip.round(3).tolist()}; reset the expert "
                "after its environment"
            )
        corners.append(np.append(physics.named.data.qpos[names], waypoint.opening))
    return _smooth([0.0, *(waypoint.seconds for waypoint in path)], np.stack(corners), control_hz)


def _smooth(seconds: list[float], corners: Vector, control_hz: int) -> Vector:
    """Interpolate ``corners`` (N, 7) at each control step. The speed is zero at each corner."""
    times = np.arange(1, math.ceil(seconds[-1] * control_hz) + 1) / control_hz
    progress = np.interp(times, seconds, np.arange(len(seconds)))
    index = np.minimum(progress.astype(int), len(corners) - 2)
    share = (progress - index)[:, None]
    change = corners[index + 1] - corners[index]
    path: Vector = corners[index] + share**2 * (3 - 2 * share) * change
    return path
