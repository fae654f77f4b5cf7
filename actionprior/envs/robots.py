"""The suite's robots as data: which arm, where it stands, how it is commanded.

A robot is a description, not a class to inherit from: the joint chain (origins, axes, limits) is
read from the URDF that ships with ``pybullet_data``, so adding an arm is adding one ``Robot``.
Nothing here imports PyBullet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from actionprior.errors import UserError

type ControlMode = Literal["joint_delta", "joint_position", "ee_delta"]

CONTROL_MODES: tuple[ControlMode, ...] = get_args(ControlMode.__value__)
CONTROL_HZ = 10
"""Control rate of every robot in the suite [Hz]."""

MAX_JOINT_DELTA = 0.2
"""Largest change of one joint target in a step [rad]; 2 rad/s."""
MAX_TIP_DELTA = 0.05
"""Largest change of each coordinate of the tip target in a step [m]; 0.5 m/s."""
MAX_TIP_ROTATION = 0.2
"""Largest component of the tip target's rotation vector in a step [rad]; 2 rad/s."""


class Feature(NamedTuple):
    """One number of a state or an action.

    Attributes:
        name: as it stands in the dataset, e.g. ``joint_1``.
        unit: ``m``, ``rad`` or ``1`` (the gripper: 0 off, 1 on).
        kind: representation: ``ee_position``, ``joint_position``, ``joint_delta``,
            ``ee_delta_position``, ``ee_delta_rotation`` or ``gripper``.
    """

    name: str
    unit: str
    kind: str


@dataclass(frozen=True)
class Robot:
    """One arm on the table.

    Attributes:
        name: short name, also the dataset's ``robot_type``.
        urdf: path of the arm's URDF inside ``pybullet_data``.
        dof: number of revolute joints, counted from the base.
        flange: distance of the flange from the last joint's frame, along its z axis [m].
        base: where the base stands in table coordinates (x, y, z) [m].
        home: joint angles with the tool pointing down above the workspace [rad].
        control_mode: the default among :data:`CONTROL_MODES`.
        colors: RGB of the links and of the joint housings, 0..1.
        radius: radius of the drawn links at the base and at the flange [m].
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

    @property
    def state_features(self) -> tuple[Feature, ...]:
        """What ``observation["state"]`` holds, in order; the tip is in the robot's base frame."""
        tip = tuple(Feature(f"ee_{axis}", "m", "ee_position") for axis in "xyz")
        joints = tuple(
            Feature(f"joint_{i}", "rad", "joint_position") for i in range(1, self.dof + 1)
        )
        return (*tip, *joints, Feature("gripper", "1", "gripper"))

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

ROBOTS: dict[str, Robot] = {robot.name: robot for robot in (PANDA, KUKA, XARM6)}


def find_robot(robot: str | Robot) -> Robot:
    """The robot of that name; a :class:`Robot` passes through, so users can bring their own.

    Raises:
        UserError: no robot has that name.
    """
    if isinstance(robot, Robot):
        return robot
    if robot not in ROBOTS:
        raise UserError(f"robot {robot!r} is not known; choose one of {sorted(ROBOTS)}")
    return ROBOTS[robot]
