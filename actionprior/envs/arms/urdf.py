"""Joint chains, and light URDFs that render fast, from a robot's full URDF or its DH rows.

The software renderer's time grows with the number of triangles: the original Panda has 102,759, the
light one a few hundred. Joint origins, axes, limits and efforts are the original ones. Links are
drawn as cylinders between the joint origins. Only the tool collides: a **vacuum gripper** (a shaft
with a suction cup) or simple **jaws** replace the manufacturer's gripper.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from actionprior.envs.arms.kinematics import Array, Chain
from actionprior.envs.arms.robots import Robot
from actionprior.errors import UserError, missing_extra

TOOL_LENGTH = 0.12
"""Distance from the flange to the suction cup's tip or to the middle of the fingertips [m]."""
TOOL_RADIUS = 0.022
"""Radius of the suction cup [m]."""
JAW_OPENING = 0.08
"""Largest distance between the inner faces of the jaws' fingers [m]."""
FINGER_LENGTH = 0.07
"""Length of the jaws' fingers along the tool [m]."""
_FINGER = (0.024, 0.012)
"""Width (across the opening) and thickness (along it) of a finger [m]."""
PRISM_FILE = "prism.obj"
"""File name of the mesh that the light URDF uses for cylinders, in the same folder."""


def data_path() -> Path:
    """Return the folder of ``pybullet_data``.

    Raises:
        UserError: PyBullet is not installed.
    """
    try:
        module = importlib.import_module("pybullet_data")
    except ModuleNotFoundError as error:
        raise UserError(
            f"the simulated robots need PyBullet; {missing_extra('pybullet', 'sim')}"
        ) from error
    return Path(module.getDataPath())


@cache
def load_chain(robot: Robot) -> Chain:
    """Load a robot's joint chain, from the base to the tip of the tool.

    Raises:
        UserError: A URDF describes the robot, and PyBullet is not installed or the URDF has fewer
            revolute joints than the robot needs.
    """
    if robot.dh:
        return _chain_from_dh(robot)
    path = data_path() / robot.urdf
    joints = [j for j in ElementTree.parse(path).getroot().iter("joint") if _is_revolute(j)][
        : robot.dof
    ]
    if len(joints) < robot.dof:
        raise UserError(
            f"{path} has {len(joints)} revolute joints, but {robot.name} needs {robot.dof}"
        )
    limits = [j.find("limit") for j in joints]

    def limit(name: str) -> Array:
        return np.array([float(e.get(name, "0")) for e in limits if e is not None])

    axes = np.array([_numbers(j.find("axis"), "xyz", (1.0, 0.0, 0.0)) for j in joints])
    return Chain(
        origins=np.array([_origin(j.find("origin")) for j in joints]),
        axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
        # The tasks need at most half a turn in each direction, also of a continuous wrist.
        lower=np.maximum(limit("lower"), -np.pi),
        upper=np.minimum(limit("upper"), np.pi),
        effort=limit("effort"),
        tool=_translation((0.0, 0.0, robot.flange + TOOL_LENGTH)),
    )


def _chain_from_dh(robot: Robot) -> Chain:
    """Build a chain from DH rows.

    T_i = Rot_z(q_i) Trans_z(d_i) Trans_x(a_i) Rot_x(alpha_i), and joint i + 1 comes after T_i.
    """
    after = []
    for row in robot.dh:
        cos, sin = np.cos(row.alpha), np.sin(row.alpha)
        pose = _translation((row.a, 0.0, row.d))
        pose[1:3, 1:3] = [[cos, -sin], [sin, cos]]
        after.append(pose)
    limits = np.array([row.limit for row in robot.dh])
    return Chain(
        origins=np.array([np.eye(4), *after[:-1]]),
        axes=np.tile((0.0, 0.0, 1.0), (robot.dof, 1)),
        lower=-limits,
        upper=limits,
        effort=np.array([row.effort for row in robot.dh]),
        tool=after[-1] @ _translation((0.0, 0.0, robot.flange + TOOL_LENGTH)),
    )


def light_urdf(robot: Robot) -> str:
    """Write a URDF with the robot's kinematics, cylinders as links, and the tool.

    Joint ``i`` (1..n) moves link ``i``. The link ``tool`` follows. Jaws have two more links,
    ``finger_1`` and ``finger_2``, on joints that slide by half the opening. Only the tool and the
    fingers collide.
    """
    chain = load_chain(robot)
    radii = np.linspace(*robot.radius, robot.dof + 1)
    shell, housing = (f"{r} {g} {b} 1" for r, g, b in robot.colors)
    mount = chain.tool @ _translation((0.0, 0.0, -TOOL_LENGTH))
    ends = [*chain.origins[:, :3, 3], mount[:3, 3]]
    parts = ["<?xml version='1.0'?>", f"<robot name='{robot.name}'>"]
    parts += _link("link_0", 4.0, _strut(ends[0], radii[0] * 1.15, housing))
    for i in range(robot.dof):
        mass = float(np.interp(i, (0, robot.dof - 1), (3.0, 0.5)))
        visuals = _strut(ends[i + 1], radii[i], shell)
        thick, long = radii[i] * 1.2, radii[i] * 2
        visuals += _cylinder(_rpy_towards(chain.axes[i]), (0, 0, 0), thick, long, housing)
        parts += _link(f"link_{i + 1}", mass, visuals)
        parts += [
            f"<joint name='joint_{i + 1}' type='revolute'>",
            f"<parent link='link_{i}'/><child link='link_{i + 1}'/>",
            _origin_tag(chain.origins[i]),
            f"<axis xyz='{_format(chain.axes[i])}'/>",
            f"<limit lower='{chain.lower[i]}' upper='{chain.upper[i]}'"
            f" effort='{chain.effort[i]}' velocity='10'/>",
            "</joint>",
        ]
    jaws = robot.gripper == "jaws"
    parts += [*(_palm() if jaws else _cup()), "<joint name='tool_joint' type='fixed'>"]
    parts += [
        f"<parent link='link_{robot.dof}'/><child link='tool'/>",
        _origin_tag(mount),
        "</joint>",
    ]
    if jaws:
        parts += [*_finger(1, 1.0), *_finger(2, -1.0)]
    return "\n".join([*parts, "</robot>"])


def _palm() -> list[str]:
    size = (0.036, JAW_OPENING + 2 * _FINGER[1], 0.03)
    height = TOOL_LENGTH - FINGER_LENGTH
    half = (height - size[2]) / 2
    shaft = _cylinder((0, 0, 0), (0, 0, half), 0.02, 2 * half, "0.15 0.15 0.17 1")
    palm = _box((0, 0, height - size[2] / 2), size, "0.22 0.23 0.26 1")
    return _link("tool", 0.2, shaft + palm)


def _finger(number: int, side: float) -> list[str]:
    width, thickness = _FINGER
    middle = (0.0, side * thickness / 2, FINGER_LENGTH / 2)
    shapes = _box(middle, (width, thickness, FINGER_LENGTH), "0.05 0.05 0.06 1")
    return [
        *_link(f"finger_{number}", 0.1, shapes),
        f"<joint name='finger_joint_{number}' type='prismatic'>",
        f"<parent link='tool'/><child link='finger_{number}'/>",
        _origin_tag(_translation((0.0, 0.0, TOOL_LENGTH - FINGER_LENGTH))),
        f"<axis xyz='0 {side:g} 0'/>",
        f"<limit lower='0' upper='{JAW_OPENING / 2}' effort='100' velocity='1'/></joint>",
    ]


def _box(xyz: tuple[float, ...], size: tuple[float, ...], color: str) -> str:
    """Write a box that is both drawn and able to collide."""
    shape = f"<origin xyz='{_format(xyz)}'/><geometry><box size='{_format(size)}'/></geometry>"
    return (
        f"<visual>{shape}<material name='c{color.replace(' ', '_')}'><color rgba='{color}'/>"
        f"</material></visual><collision>{shape}</collision>"
    )


def _cup() -> list[str]:
    half = TOOL_LENGTH / 2
    dark, cup = "0.15 0.15 0.17 1", "0.05 0.05 0.06 1"
    visuals = _cylinder((0, 0, 0), (0, 0, half - 0.01), 0.011, TOOL_LENGTH - 0.02, dark)
    visuals += _cylinder((0, 0, 0), (0, 0, TOOL_LENGTH - 0.01), TOOL_RADIUS, 0.02, cup)
    collision = (
        f"<collision><origin xyz='0 0 {half}'/><geometry>"
        f"<cylinder radius='{TOOL_RADIUS}' length='{TOOL_LENGTH}'/></geometry></collision>"
    )
    return _link("tool", 0.2, visuals + collision)


def _link(name: str, mass: float, shapes: str) -> list[str]:
    inertia = 0.01 * mass
    return [
        f"<link name='{name}'><inertial><mass value='{mass}'/>"
        f"<inertia ixx='{inertia}' iyy='{inertia}' izz='{inertia}' ixy='0' ixz='0' iyz='0'/>"
        f"</inertial>{shapes}</link>"
    ]


def _strut(end: Array, radius: float, color: str) -> str:
    """Write a cylinder from the link's origin to ``end``, or nothing if they are close."""
    length = float(np.linalg.norm(end))
    if length < 0.03:
        return ""
    middle = tuple(float(v) for v in end / 2)
    return _cylinder(_rpy_towards(end), middle, radius, length, color)


def _cylinder(
    rpy: tuple[float, ...], xyz: tuple[float, ...], radius: float, length: float, color: str
) -> str:
    return (
        f"<visual><origin xyz='{_format(xyz)}' rpy='{_format(rpy)}'/><geometry>"
        f"<mesh filename='{PRISM_FILE}' scale='{radius:.4f} {radius:.4f} {length:.4f}'/></geometry>"
        f"<material name='c{color.replace(' ', '_')}'><color rgba='{color}'/></material></visual>"
    )


def _rpy_towards(direction: Array) -> tuple[float, float, float]:
    """Compute roll, pitch and yaw that rotate the z axis to ``direction``."""
    x, y, z = direction / np.linalg.norm(direction)
    return 0.0, float(np.arctan2(np.hypot(x, y), z)), float(np.arctan2(y, x))


def _translation(xyz: tuple[float, float, float]) -> Array:
    pose = np.eye(4)
    pose[:3, 3] = xyz
    return pose


def _is_revolute(joint: ElementTree.Element) -> bool:
    return joint.get("type") in ("revolute", "continuous")


def _origin(element: ElementTree.Element | None) -> Array:
    roll, pitch, yaw = _numbers(element, "rpy", (0.0, 0.0, 0.0))
    (sr, sp, sy), (cr, cp, cy) = np.sin([roll, pitch, yaw]), np.cos([roll, pitch, yaw])
    pose = np.eye(4)
    pose[:3, :3] = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    )
    pose[:3, 3] = _numbers(element, "xyz", (0.0, 0.0, 0.0))
    return pose


def _origin_tag(pose: Array) -> str:
    r = pose[:3, :3]
    pitch = np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0]))
    rpy = np.arctan2(r[2, 1], r[2, 2]), pitch, np.arctan2(r[1, 0], r[0, 0])
    return f"<origin xyz='{_format(pose[:3, 3])}' rpy='{_format(rpy)}'/>"


def _numbers(
    element: ElementTree.Element | None, name: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    text = None if element is None else element.get(name)
    return default if text is None else tuple(float(v) for v in text.split())


def _format(values: Array | tuple[float, ...]) -> str:
    return " ".join(f"{float(v):.9g}" for v in values)
