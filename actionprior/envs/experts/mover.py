"""How an expert moves one arm: with limited speed and acceleration, in any control mode."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.arm import Arm
from actionprior.envs.arms.kinematics import TOOL_DOWN, Array, Pose, rotation_matrix, solve_ik
from actionprior.envs.experts.human import Human
from actionprior.envs.experts.plan import Aim

_HZ = 10
"""The rate that the numbers below are for; at another one they are scaled to the same speeds."""
_ACCELERATION = 0.010
"""Largest change of the tip's velocity [m a step, a step]."""
_TURN = 0.12
"""Top speed of a change of the tool's direction [rad a step]."""
_TURN_ACCELERATION = 0.03
"""Largest change of that speed [rad a step, a step]."""


class Mover:
    """Moves one arm's held target towards an aim with limited speed and acceleration.

    Args:
        arm: what is moved.
        speed: top speed [m a step of 0.1 s].
        opens: whether jaws are open while they hold nothing.
        flaws: a person's, or None.
    """

    def __init__(self, arm: Arm, speed: float, opens: bool, flaws: Human | None = None) -> None:
        pace = _HZ / arm.robot.control_hz
        self._arm = arm
        self._top_speed = speed * pace
        self._top_turn = _TURN * pace
        self._acceleration = _ACCELERATION * pace**2
        self._turn_acceleration = _TURN_ACCELERATION * pace**2
        self._landing = 1 - 0.4**pace
        self._opens = opens
        self._flaws = flaws
        # At 10 Hz the lean that an episode starts with is undone in one step, as in all recordings
        # so far; at a higher rate that would be a jerk.
        self._default_direction = TOOL_DOWN[:, 2] if pace < 1 else None
        self._velocity: Array = np.zeros(3)
        self._turning = 0.0

    def __call__(self, aim: Aim) -> Array:
        """The arm's part of an action."""
        arm, control = self._arm, self._arm.control
        held = control.target
        if self._flaws is not None:
            aim = self._flaws.bend(aim, arm.to_table(held.position))
        self._advance(arm.to_base(aim.tip) - held.position, self._top_speed * aim.speed)
        rotation = arm.upright
        direction = self._default_direction if aim.direction is None else aim.direction
        if direction is not None:
            rotation = self._turned(held.rotation, arm.turn.T @ direction)
        step = self._velocity
        if self._flaws is not None:
            step = step + self._flaws.tremor(step)
        goal = Pose(held.position + step, rotation)
        q: Array = control.target_q
        if control.free_yaw:
            q = solve_ik(arm.chain, q, goal, free_yaw=True, posture=arm.home, iterations=8).q
        return np.append(control.motion_to(goal, q), self._grip(aim.suction))

    def _grip(self, hold: bool) -> float:
        if self._arm.robot.gripper == "vacuum":
            return float(hold)
        return float(self._opens and not hold)

    def _advance(self, way: Array, top_speed: float) -> None:
        """Turn the velocity towards ``way`` (3,) [m], limited in speed and acceleration."""
        distance = float(np.sqrt(way @ way))
        # v² = 2 a d brakes in time; half the way in a step of 0.1 s lands softly.
        brake = math.sqrt(2 * 0.6 * self._acceleration * distance)
        speed = min(top_speed, brake, self._landing * distance)
        change = way * (speed / max(distance, 1e-9)) - self._velocity
        size = float(np.sqrt(change @ change))
        self._velocity = self._velocity + change * min(1.0, self._acceleration / max(size, 1e-9))

    def _turned(self, rotation: Array, direction: Array) -> Array:
        """``rotation`` (3, 3) turned, within the same kinds of limits, to point along there."""
        axis: Array = np.asarray(np.cross(rotation[:, 2], direction), dtype=np.float64)
        sin, cos = float(np.sqrt(axis @ axis)), float(rotation[:, 2] @ direction)
        angle = math.atan2(sin, cos)
        brake = math.sqrt(2 * 0.6 * self._turn_acceleration * angle)
        speed = min(self._top_turn, brake, self._landing * angle)
        self._turning = min(speed, self._turning + self._turn_acceleration)
        return rotation_matrix(axis * (self._turning / max(sin, 1e-9))) @ rotation
