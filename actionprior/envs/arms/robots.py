"""Descriptions of the suite's robots: kinematics, place at the table and control.

A robot is data, not a class to inherit from: to add an arm, add one :class:`Robot`. Its joint chain
comes from a URDF of ``pybullet_data`` or from Denavit-Hartenberg rows. Two arms at one table are a
:class:`Station`. This module does not import PyBullet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from actionprior.errors import UserError

type ControlMode = Literal["joint_delta", "joint_position", "ee_delta"]
type GripperKind = Literal["vacuum", "jaws"]
type Triple = tuple[float, float, float]
"""Position, size or colour with three coordinates."""

CONTROL_MODES: tuple[ControlMode, ...] = get_args(ControlMode.__value__)
PHYSICS_HZ = 120
"""Physics rate of the simulator [Hz], a multiple of every control rate."""

MAX_JOINT_SPEED = 2.0
"""Largest speed of a joint target [rad/s]. Divided by the control rate, it limits a step."""
MAX_TIP_SPEED = 0.5
"""Largest speed of the tip target along each axis [m/s]."""
MAX_TIP_TURN = 2.0
"""Largest angular speed of the tip target about each axis [rad/s]."""


class Feature(NamedTuple):
    """One number of a state or an action.

    Attributes:
        name: Name in datasets, e.g. ``joint_1``.
        unit: ``m``, ``rad``, or ``1`` for gripper commands and for the state of a vacuum gripper.
        kind: Representation: ``ee_position``, ``joint_position``, ``joint_delta``,
            ``ee_delta_position``, ``ee_delta_rotation`` or ``gripper``.
    """

    name: str
    unit: str
    kind: str


class DHRow(NamedTuple):
    """One joint in the standard Denavit-Hartenberg convention.

    The joint rotates about z before the row's transforms apply.

    Attributes:
        a: Length along the new x axis [m].
        d: Offset along the old z axis [m].
        alpha: Twist about the new x axis [rad].
        limit: Largest angle in both directions [rad].
        effort: Largest torque [N m].
    """

    a: float
    d: float
    alpha: float
    limit: float = 2 * math.pi
    effort: float = 150.0


@dataclass(frozen=True)
class Robot:
    """One arm at the table.

    The gripper's polarity differs between the two kinds on purpose, as between real grippers:

    - ``vacuum``: actions above 0.5 switch it on. The state is 0 (off), 0.5 (on) or 1 (holding).
    - ``jaws``: actions are the wanted opening, from 0 (closed) to **1 (open)**. The state is the
      measured opening, 0 to 0.08 m.

    Attributes:
        name: Short name, also the ``robot_type`` of datasets.
        urdf: Path of the arm's URDF inside ``pybullet_data``. Empty if ``dh`` describes the arm.
        dof: Number of revolute joints, counted from the base.
        flange: Distance of the flange from the last joint's frame, along its z axis [m]. With
            ``dh``, it is the distance from the frame after the last row, whose ``d`` reaches the
            flange.
        base: Position of the base in table coordinates (x, y, z) [m].
        home: Joint angles at which the tool points down above the workspace [rad].
        control_mode: Default control mode, one of :data:`CONTROL_MODES`.
        colors: RGB of the links and of the joint housings, 0..1.
        radius: Radius of the drawn links at the base and at the flange [m].
        dh: Denavit-Hartenberg rows, ``dof`` of them. Empty if ``urdf`` describes the arm.
        yaw: Rotation of the base about the table's z axis [rad].
        control_hz: Control rate [Hz].
        gripper: Kind of gripper, ``vacuum`` or ``jaws``.
        start: Opposite corners of the box that the tip starts in, in table coordinates [m].

    Raises:
        UserError: Neither or both of ``urdf`` and ``dh`` are given, ``dh`` or ``home`` does not
            have ``dof`` entries, or the control rate does not divide :data:`PHYSICS_HZ`.
    """

    name: str
    urdf: str
    dof: int
    flange: float
    base: tuple[float, float, float]
    home: tuple[float, ...]
    control_mode: ControlMode
    colors: tuple[tuple[float, float, float], tuple[float, float, float]]
    radius: tuple[float, float]
    dh: tuple[DHRow, ...] = ()
    yaw: float = 0.0
    control_hz: int = 10
    gripper: GripperKind = "vacuum"
    start: tuple[Triple, Triple] = ((-0.10, -0.14, 0.19), (0.06, 0.14, 0.29))

    def __post_init__(self) -> None:
        """Raise an error if the arm cannot be simulated."""
        if bool(self.urdf) == bool(self.dh):
            raise UserError(f"robot {self.name!r} needs either a urdf or dh rows to describe it")
        if len(self.home) != self.dof or (self.dh and len(self.dh) != self.dof):
            raise UserError(
                f"robot {self.name!r} has dof {self.dof}, but {len(self.home)} home angles and "
                f"{len(self.dh)} dh rows"
            )
        if self.control_hz < 1 or PHYSICS_HZ % self.control_hz:
            raise UserError(
                f"robot {self.name!r}: control_hz is {self.control_hz}; choose a whole divisor of "
                f"{PHYSICS_HZ}, e.g. 10, 15, 20 or 30"
            )

    @property
    def arms(self) -> tuple[Robot, ...]:
        """This arm, as a tuple of one, so that robots and stations can be used the same way."""
        return (self,)

    @property
    def state_features(self) -> tuple[Feature, ...]:
        """Features of ``observation["state"]``, in order. The tip is in the robot's base frame."""
        tip = tuple(Feature(f"ee_{axis}", "m", "ee_position") for axis in "xyz")
        joints = tuple(
            Feature(f"joint_{i}", "rad", "joint_position") for i in range(1, self.dof + 1)
        )
        unit = "1" if self.gripper == "vacuum" else "m"
        return (*tip, *joints, Feature("gripper", unit, "gripper"))

    def action_features(self, mode: ControlMode | None = None) -> tuple[Feature, ...]:
        """Return the features of an action, in order.

        Args:
            mode: Control mode. None uses the robot's default.

        Raises:
            UserError: The mode is not one of :data:`CONTROL_MODES`.
        """
        mode = check_control_mode(mode or self.control_mode)
        if mode == "ee_delta":
            motion = (
                *(Feature(f"d{axis}", "m", "ee_delta_position") for axis in "xyz"),
                *(Feature(f"dr{axis}", "rad", "ee_delta_rotation") for axis in "xyz"),
            )
        else:
            suffix = "_delta" if mode == "joint_delta" else ""
            motion = tuple(
                Feature(f"joint_{i}{suffix}", "rad", mode) for i in range(1, self.dof + 1)
            )
        return (*motion, Feature("gripper", "1", "gripper"))


SIDES = ("left_", "right_")
"""Prefixes of a station's features, in the order of its arms."""


@dataclass(frozen=True)
class Station:
    """Two arms at one table that are commanded together.

    States and actions contain the left arm's features, then the right arm's. :data:`SIDES` prefixes
    their names. The left arm stands at positive y.

    Attributes:
        name: Short name, also the ``robot_type`` of datasets.
        left: The first arm.
        right: The second arm.

    Raises:
        UserError: The arms differ in control mode or control rate.
    """

    name: str
    left: Robot
    right: Robot

    def __post_init__(self) -> None:
        """Raise an error if the arms cannot be commanded together."""
        found = {(arm.control_mode, arm.control_hz) for arm in self.arms}
        if len(found) > 1:
            raise UserError(
                f"the arms of station {self.name!r} must share control mode and rate; "
                f"they have {sorted(found)}"
            )

    @property
    def arms(self) -> tuple[Robot, ...]:
        """Left and right arm."""
        return (self.left, self.right)

    @property
    def control_mode(self) -> ControlMode:
        """Default control mode of both arms."""
        return self.left.control_mode

    @property
    def control_hz(self) -> int:
        """Control rate of both arms [Hz]."""
        return self.left.control_hz

    @property
    def state_features(self) -> tuple[Feature, ...]:
        """Features of ``observation["state"]``. Each tip is in its own arm's base frame."""
        return tuple(
            feature._replace(name=side + feature.name)
            for side, arm in zip(SIDES, self.arms, strict=True)
            for feature in arm.state_features
        )

    def action_features(self, mode: ControlMode | None = None) -> tuple[Feature, ...]:
        """Return the features of an action, in order.

        Args:
            mode: Control mode. None uses the arms' default.

        Raises:
            UserError: The mode is not one of :data:`CONTROL_MODES`.
        """
        return tuple(
            feature._replace(name=side + feature.name)
            for side, arm in zip(SIDES, self.arms, strict=True)
            for feature in arm.action_features(mode)
        )


def check_control_mode(mode: str) -> ControlMode:
    """Check that a control mode exists, and return it.

    Raises:
        UserError: The mode is not one of :data:`CONTROL_MODES`.
    """
    for known in CONTROL_MODES:
        if mode == known:
            return known
    raise UserError(f"control_mode {mode!r} is not known; choose one of {list(CONTROL_MODES)}")


PANDA = Robot(
    name="panda",
    urdf="franka_panda/panda.urdf",
    dof=7,
    flange=0.107,
    base=(-0.50, 0.0, 0.0),
    home=(0.0, -0.124, 0.0, -2.382, 0.0, 2.258, 0.785),
    control_mode="joint_delta",
    colors=((0.93, 0.93, 0.94), (0.30, 0.31, 0.34)),
    radius=(0.06, 0.045),
)

KUKA = Robot(
    name="kuka",
    urdf="kuka_iiwa/model.urdf",
    dof=7,
    flange=0.045,
    base=(-0.57, 0.0, 0.0),
    home=(0.0, 0.546, 0.0, -1.617, 0.0, 0.979, 0.0),
    control_mode="joint_position",
    colors=((0.62, 0.65, 0.69), (0.58, 0.42, 0.31)),
    radius=(0.065, 0.045),
)

XARM6 = Robot(
    name="xarm6",
    urdf="xarm/xarm6_robot.urdf",
    dof=6,
    flange=0.0,
    base=(-0.42, 0.0, 0.0),
    home=(0.0, -0.240, -0.852, 0.0, 1.092, 0.0),
    control_mode="ee_delta",
    colors=((0.86, 0.87, 0.88), (0.52, 0.55, 0.58)),
    radius=(0.055, 0.04),
)

UR5E = Robot(
    name="ur5e",
    urdf="",
    # Universal Robots' published parameters.
    dh=(
        DHRow(0.0, 0.1625, math.pi / 2),
        DHRow(-0.425, 0.0, 0.0),
        DHRow(-0.3922, 0.0, 0.0),
        DHRow(0.0, 0.1333, math.pi / 2),
        DHRow(0.0, 0.0997, -math.pi / 2),
        DHRow(0.0, 0.0996, 0.0),
    ),
    dof=6,
    flange=0.0,
    base=(-0.50, 0.0, 0.0),
    yaw=math.pi,  # a UR's arm points along the -x axis of its base
    home=(-0.281, -1.601, 1.906, -1.876, -1.571, 0.0),
    control_mode="joint_position",
    control_hz=20,
    gripper="jaws",
    colors=((0.78, 0.80, 0.83), (0.36, 0.55, 0.72)),
    radius=(0.06, 0.04),
)

_DUO_LEFT = Robot(
    name="ur3e",
    urdf="",
    dh=(
        DHRow(0.0, 0.15185, math.pi / 2),
        DHRow(-0.24355, 0.0, 0.0),
        DHRow(-0.2132, 0.0, 0.0),
        DHRow(0.0, 0.13105, math.pi / 2),
        DHRow(0.0, 0.08535, -math.pi / 2),
        DHRow(0.0, 0.0921, 0.0),
    ),
    dof=6,
    flange=0.0,
    base=(0.0, 0.48, 0.0),
    yaw=math.pi / 2,
    home=(-0.396, -1.508, 1.522, -1.584, -1.571, 0.0),
    control_mode="joint_delta",
    control_hz=15,
    colors=((0.78, 0.80, 0.83), (0.36, 0.55, 0.72)),
    radius=(0.045, 0.03),
    start=((-0.08, 0.10, 0.15), (0.08, 0.18, 0.20)),
)

DUO = Station(
    name="duo",
    left=_DUO_LEFT,
    right=replace(
        _DUO_LEFT,
        base=(0.0, -0.48, 0.0),
        yaw=-math.pi / 2,
        colors=((0.78, 0.80, 0.83), (0.80, 0.52, 0.30)),
        start=((-0.08, -0.18, 0.15), (0.08, -0.10, 0.20)),
    ),
)
"""Two UR3e that face each other along y. Only both together can carry an object from one side of
the table to the other."""

ROBOTS: dict[str, Robot] = {robot.name: robot for robot in (PANDA, KUKA, XARM6, UR5E)}
STATIONS: dict[str, Station] = {DUO.name: DUO}


def find_robot(robot: str | Robot | Station) -> Robot | Station:
    """Return the robot or station with a name. A description is returned unchanged.

    Raises:
        UserError: No robot has this name.
    """
    if not isinstance(robot, str):
        return robot
    known: dict[str, Robot | Station] = {**ROBOTS, **STATIONS}
    if robot not in known:
        raise UserError(f"robot {robot!r} is not known; choose one of {sorted(known)}")
    return known[robot]
