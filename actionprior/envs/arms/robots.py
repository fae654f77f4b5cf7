"""The suite's robots as data: which arm, where it stands, how it is commanded.

A robot is a description, not a class to inherit from: the joint chain is read from a URDF that
ships with ``pybullet_data`` or follows from Denavit-Hartenberg rows, so adding an arm is adding one
``Robot``. Two arms at one table are a :class:`Station`. Nothing here imports PyBullet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from actionprior.errors import UserError

type ControlMode = Literal["joint_delta", "joint_position", "ee_delta"]
type Gripper = Literal["vacuum", "jaws"]
type Triple = tuple[float, float, float]

CONTROL_MODES: tuple[ControlMode, ...] = get_args(ControlMode.__value__)
PHYSICS_HZ = 120
"""Physics rate of the simulator [Hz]; control rates divide it."""

MAX_JOINT_SPEED = 2.0
"""Fastest change of one joint target [rad/s]; divided by the control rate, the limit of a step."""
MAX_TIP_SPEED = 0.5
"""Fastest change of each coordinate of the tip target [m/s]."""
MAX_TIP_TURN = 2.0
"""Largest component of the tip target's rate of rotation [rad/s]."""


class Feature(NamedTuple):
    """One number of a state or an action.

    Attributes:
        name: as it stands in the dataset, e.g. ``joint_1``.
        unit: ``m``, ``rad`` or ``1`` (a commanded gripper, a vacuum).
        kind: representation: ``ee_position``, ``joint_position``, ``joint_delta``,
            ``ee_delta_position``, ``ee_delta_rotation`` or ``gripper``.
    """

    name: str
    unit: str
    kind: str


class DHRow(NamedTuple):
    """One joint in the standard Denavit-Hartenberg convention; it turns about z before these.

    Attributes:
        a: length along the new x axis [m].
        d: offset along the old z axis [m].
        alpha: twist about the new x axis [rad].
        limit: how far the joint turns either way [rad].
        effort: largest torque [N m].
    """

    a: float
    d: float
    alpha: float
    limit: float = 2 * math.pi
    effort: float = 150.0


@dataclass(frozen=True)
class Robot:
    """One arm on the table.

    The gripper as an action is 0 or 1, thresholded at 0.5, for a vacuum (0 off, **1 on**), and a
    wanted opening from 0 (closed) to **1 (open)** for jaws: the polarity differs on purpose, as it
    does between real grippers. As a state it is 0, 0.5 (on) or 1 (holding) for a vacuum, and the
    measured opening, 0 to 0.08 m, for jaws.

    Attributes:
        name: short name, also the dataset's ``robot_type``.
        urdf: path of the arm's URDF inside ``pybullet_data``; empty if ``dh`` describes the arm.
        dof: number of revolute joints, counted from the base.
        flange: distance of the flange from the last joint's frame, along its z axis [m]; for an
            arm described by ``dh``, from the frame after the last row (its d reaches the flange).
        base: where the base stands in table coordinates (x, y, z) [m].
        home: joint angles with the tool pointing down above the workspace [rad].
        control_mode: the default among :data:`CONTROL_MODES`.
        colors: RGB of the links and of the joint housings, 0..1.
        radius: radius of the drawn links at the base and at the flange [m].
        dh: ``dof`` rows, or none if ``urdf`` describes the arm.
        yaw: how far the base is turned about the table's z axis [rad].
        control_hz: control rate [Hz].
        gripper: ``vacuum`` or ``jaws``.
        start: opposite corners of the box that the tip starts in, in table coordinates [m].

    Raises:
        UserError: neither or both of ``urdf`` and ``dh`` are given, their number or that of
            ``home`` is not ``dof``, or the control rate does not divide :data:`PHYSICS_HZ`.
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
    gripper: Gripper = "vacuum"
    start: tuple[Triple, Triple] = ((-0.10, -0.14, 0.19), (0.06, 0.14, 0.29))

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
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
        """The one arm itself."""
        return (self,)

    @property
    def state_features(self) -> tuple[Feature, ...]:
        """What ``observation["state"]`` holds, in order; the tip is in the robot's base frame."""
        tip = tuple(Feature(f"ee_{axis}", "m", "ee_position") for axis in "xyz")
        joints = tuple(
            Feature(f"joint_{i}", "rad", "joint_position") for i in range(1, self.dof + 1)
        )
        unit = "1" if self.gripper == "vacuum" else "m"
        return (*tip, *joints, Feature("gripper", unit, "gripper"))

    def action_features(self, mode: ControlMode | None = None) -> tuple[Feature, ...]:
        """What an action holds, in order, under ``mode`` (None: the robot's default).

        Raises:
            UserError: the mode is not one of :data:`CONTROL_MODES`.
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
    """Two arms at one table, commanded together.

    States and actions are the left arm's followed by the right arm's, their names with the
    prefixes of :data:`SIDES`. The left arm stands at positive y.

    Attributes:
        name: short name, also the dataset's ``robot_type``.
        left: the first arm.
        right: the second arm.

    Raises:
        UserError: the arms differ in control mode or rate.
    """

    name: str
    left: Robot
    right: Robot

    def __post_init__(self) -> None:
        """Refuse arms that cannot be commanded together."""
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
        """The default of both arms."""
        return self.left.control_mode

    @property
    def control_hz(self) -> int:
        """Control rate of both arms [Hz]."""
        return self.left.control_hz

    @property
    def state_features(self) -> tuple[Feature, ...]:
        """What ``observation["state"]`` holds; each tip is in its own arm's base frame."""
        return tuple(
            feature._replace(name=side + feature.name)
            for side, arm in zip(SIDES, self.arms, strict=True)
            for feature in arm.state_features
        )

    def action_features(self, mode: ControlMode | None = None) -> tuple[Feature, ...]:
        """What an action holds, in order, under ``mode`` (None: the arms' default).

        Raises:
            UserError: the mode is not one of :data:`CONTROL_MODES`.
        """
        return tuple(
            feature._replace(name=side + feature.name)
            for side, arm in zip(SIDES, self.arms, strict=True)
            for feature in arm.action_features(mode)
        )


def check_control_mode(mode: str) -> ControlMode:
    """Give ``mode`` back as a :data:`ControlMode`.

    Raises:
        UserError: it is none.
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
    yaw=math.pi,  # a UR's arm stretches along its base's -x
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
"""Two UR3e face each other along y; between their reaches lies a strip that only both together
cross."""

ROBOTS: dict[str, Robot] = {robot.name: robot for robot in (PANDA, KUKA, XARM6, UR5E)}
STATIONS: dict[str, Station] = {DUO.name: DUO}


def find_robot(robot: str | Robot | Station) -> Robot | Station:
    """The robot or station of that name; a description passes through: users bring their own.

    Raises:
        UserError: no robot has that name.
    """
    if not isinstance(robot, str):
        return robot
    known: dict[str, Robot | Station] = {**ROBOTS, **STATIONS}
    if robot not in known:
        raise UserError(f"robot {robot!r} is not known; choose one of {sorted(known)}")
    return known[robot]
