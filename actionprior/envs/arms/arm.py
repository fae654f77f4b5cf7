"""One arm at the table: its chain, how it is commanded, and where it stands."""

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
"""How far the tool starts from upright: two tilts and the yaw [rad]."""


def base_turn(robot: Robot) -> Array:
    """Rotation (3, 3) from a robot's base frame to table coordinates."""
    sin, cos = math.sin(robot.yaw), math.cos(robot.yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


class Tip(NamedTuple):
    """Where a tool's tip is (3,) [m] and where it points, a unit vector (3,), in table frame."""

    position: Array
    direction: Array


class Arm:
    """An arm with the control that moves it.

    Args:
        robot: the arm.
        mode: its control mode.

    Attributes:
        robot: the arm.
        chain: its kinematics, in the base frame.
        home: (n,) joint angles with the tool pointing down [rad].
        upright: (3, 3) rotation of the tool there, in the base frame.
        control: holds the joint targets.
        base: (3,) where it stands in table coordinates [m].
        turn: (3, 3) rotation from the base frame to table coordinates.

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
        self.turn: Array = base_turn(robot)

    def to_table(self, position: Array) -> Array:
        """A position (3,) in the base frame, in table coordinates [m]."""
        return np.asarray(self.turn @ position + self.base)

    def to_base(self, position: Array) -> Array:
        """A position (3,) in table coordinates, in the base frame [m]."""
        return np.asarray(self.turn.T @ (position - self.base))

    def tip(self, q: Array) -> Tip:
        """The tool's tip at angles ``q`` (n,) [rad]."""
        pose = self.chain.forward(q)
        return Tip(self.to_table(pose.position), self.turn @ pose.rotation[:, 2])

    def random_start(self, rng: np.random.Generator) -> Array:
        """Angles (n,) [rad] with the tip in the robot's start box, the tool leaning a little.

        Args:
            rng: the only source of randomness.

        Raises:
            UserError: the arm hardly reaches that box from where it stands.
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
