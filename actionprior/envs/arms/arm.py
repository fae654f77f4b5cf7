"""One arm at the table: its kinematics, its control and the pose of its base."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from actionprior.envs.arms.control import Control, make_control
from actionprior.envs.arms.kinematics import Array, Chain, Pose, rotation_matrix, solve_ik
from actionprior.envs.arms.robots import ControlMode, Robot
from actionprior.envs.arms.urdf import load_chain
from actionprior.errors import UserError

_START_LEAN = (0.12, 0.12, 0.4)
"""Largest deviation of the tool from upright at the start: two tilts and the yaw [rad]."""


def base_rotation(robot: Robot) -> Array:
    """Return the rotation (3, 3) from a robot's base frame to table coordinates."""
    sin, cos = math.sin(robot.yaw), math.cos(robot.yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


class Tip(NamedTuple):
    """Position (3,) [m] of a tool's tip and unit vector (3,) along the tool, in the table frame."""

    position: Array
    direction: Array


class ControlledArm:
    """An arm with the control that moves it.

    Args:
        robot: Description of the arm.
        mode: Control mode.

    Attributes:
        robot: Description of the arm.
        chain: Kinematics in the base frame.
        home: (n,) joint angles at which the tool points down [rad].
        upright: (3, 3) rotation of the tool at ``home``, in the base frame.
        control: Conversion of actions to joint targets; it stores the targets.
        base: (3,) position of the base in table coordinates [m].
        base_rotation: (3, 3) rotation from the base frame to table coordinates.

    Raises:
        UserError: PyBullet is not installed.
    """

    def __init__(self, robot: Robot, mode: ControlMode) -> None:
        self.robot = robot
        self.chain: Chain = load_chain(robot)
        self.home: Array = np.array(robot.home)
        self.upright: Array = self.chain.forward(self.home).rotation
        self.control: Control = make_control(mode, self.chain, self.home, robot.control_hz)
        self.base: Array = np.array(robot.base)
        self.base_rotation: Array = base_rotation(robot)

    def to_table(self, position: Array) -> Array:
        """Convert a position (3,) from the base frame to table coordinates [m]."""
        return np.asarray(self.base_rotation @ position + self.base)

    def to_base(self, position: Array) -> Array:
        """Convert a position (3,) from table coordinates to the base frame [m]."""
        return np.asarray(self.base_rotation.T @ (position - self.base))

    def tip(self, q: Array) -> Tip:
        """Compute the tool's tip at the joint angles ``q`` (n,) [rad]."""
        pose = self.chain.forward(q)
        return Tip(self.to_table(pose.position), self.base_rotation @ pose.rotation[:, 2])

    def random_start(self, rng: np.random.Generator) -> Array:
        """Draw joint angles (n,) [rad] with the tip in the start box and the tool slightly tilted.

        Args:
            rng: The only source of randomness.

        Raises:
            UserError: 100 draws gave no pose that the arm can reach.
        """
        for _ in range(100):
            lean = rng.uniform(-1.0, 1.0, 3) * _START_LEAN
            tip = rng.uniform(*self.robot.start)
            goal = Pose(self.to_base(tip), rotation_matrix(lean) @ self.upright)
            posture = self.home + rng.uniform(-0.1, 0.1, self.chain.dof)
            solution = solve_ik(
                self.chain, self.home, goal, posture=posture, iterations=30, tolerance=1e-3
            )
            if solution.error < 3e-3:
                return solution.q
        raise UserError(
            f"a robot at {self.base.tolist()} m with home {self.home.tolist()} rad cannot bring "
            "its tool above the table; choose another base or home"
        )
