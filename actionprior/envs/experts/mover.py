"""Motion of one arm by an expert: limited in speed and acceleration, for any control mode."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.arm import ControlledArm
from actionprior.envs.arms.kinematics import TOOL_DOWN, Array, Pose, rotation_matrix, solve_ik
from actionprior.envs.experts.human import HumanFlaws
from actionprior.envs.experts.plan import Aim
from actionprior.recording.pushes import Pushes

_HZ = 10
"""Control rate that the numbers below refer to [Hz]. They are scaled for other rates."""
_ACCELERATION = 0.010
"""Largest change of the tip's velocity [m per step, per step]."""
_TURN = 0.12
"""Largest angular speed of the tool's direction [rad per step]."""
_TURN_ACCELERATION = 0.03
"""Largest change of the angular speed [rad per step, per step]."""


class Mover:
    """Move the target of one arm's tip towards an aim with limited speed and acceleration.

    Args:
        arm: The arm to move.
        speed: Top speed [m per step of 0.1 s].
        opens: True if jaws are open while they hold nothing.
        flaws: Human-like flaws to add, or None.
        pushes: Pushes of the tip [m per step, table], or None.

    Attributes:
        executed: The last action with the push of its step, or the action itself.
    """

    def __init__(
        self,
        arm: ControlledArm,
        speed: float,
        opens: bool,
        flaws: HumanFlaws | None = None,
        pushes: Pushes | None = None,
    ) -> None:
        pace = _HZ / arm.robot.control_hz
        self._arm = arm
        self._top_speed = speed * pace
        self._top_turn = _TURN * pace
        self._acceleration = _ACCELERATION * pace**2
        self._turn_acceleration = _TURN_ACCELERATION * pace**2
        self._landing = 1 - 0.4**pace
        self._opens = opens
        self._flaws = flaws
        self._pushes = pushes
        # At 10 Hz the initial tilt of the tool is removed in one step, as in all earlier
        # recordings. At a higher rate this would be a jerk.
        self._default_direction = TOOL_DOWN[:, 2] if pace < 1 else None
        self._velocity: Array = np.zeros(3)
        self._turning = 0.0

    def __call__(self, aim: Aim) -> Array:
        """Compute the arm's part of an action."""
        arm = self._arm
        held = arm.control.target
        if self._flaws is not None:
            aim = self._flaws.adjust(aim, arm.to_table(held.position))
        self._advance(arm.to_base(aim.tip) - held.position, self._top_speed * aim.speed)
        rotation = arm.upright
        direction = self._default_direction if aim.direction is None else aim.direction
        if direction is not None:
            rotation = self._turned(held.rotation, arm.base_rotation.T @ direction)
        step = self._velocity
        if self._flaws is not None:
            step = step + self._flaws.tremor(step)
        chosen = self.executed = self._action(Pose(held.position + step, rotation), aim.suction)
        push = None if self._pushes is None else self._pushes.next()
        if push is not None:
            aside = arm.base_rotation.T @ np.append(push[:2], abs(push[2]))  # never into the table
            self.executed = self._action(Pose(held.position + step + aside, rotation), aim.suction)
        return chosen

    def _action(self, goal: Pose, hold: bool) -> Array:
        """Return the action that moves the tip to a pose within a step."""
        arm, control = self._arm, self._arm.control
        q: Array = control.target_q
        if control.free_yaw:
            q = solve_ik(arm.chain, q, goal, free_yaw=True, posture=arm.home, iterations=8).q
        return np.append(control.motion_to(goal, q), self._grip(hold))

    def _grip(self, hold: bool) -> float:
        if self._arm.robot.gripper == "vacuum":
            return float(hold)
        return float(self._opens and not hold)

    def _advance(self, displacement: Array, top_speed: float) -> None:
        """Change the velocity towards a remaining ``displacement`` (3,) [m] within the limits."""
        distance = float(np.sqrt(displacement @ displacement))
        # v² = 2 a d brakes in time. Near the aim, covering a fixed share of the remaining distance
        # per step (60 % at 10 Hz) lands softly.
        brake = math.sqrt(2 * 0.6 * self._acceleration * distance)
        speed = min(top_speed, brake, self._landing * distance)
        change = displacement * (speed / max(distance, 1e-9)) - self._velocity
        size = float(np.sqrt(change @ change))
        self._velocity = self._velocity + change * min(1.0, self._acceleration / max(size, 1e-9))

    def _turned(self, rotation: Array, direction: Array) -> Array:
        """Rotate ``rotation`` (3, 3) towards ``direction`` within the limits of angular speed."""
        axis: Array = np.asarray(np.cross(rotation[:, 2], direction), dtype=np.float64)
        sin, cos = float(np.sqrt(axis @ axis)), float(rotation[:, 2] @ direction)
        angle = math.atan2(sin, cos)
        brake = math.sqrt(2 * 0.6 * self._turn_acceleration * angle)
        speed = min(self._top_turn, brake, self._landing * angle)
        self._turning = min(speed, self._turning + self._turn_acceleration)
        return rotation_matrix(axis * (self._turning / max(sin, 1e-9))) @ rotation
