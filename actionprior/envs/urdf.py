"""From a robot's full URDF to its joint chain and to a light URDF that is cheap to draw.

The software renderer's cost is triangles: the stock Panda has 102,759, the light one a few
hundred. Joint origins, axes, limits and efforts are the originals; links are drawn as cylinders
between the joint origins; only the tool collides. The tool is a **vacuum gripper**: a shaft with a
suction cup, not the arm's own finger gripper.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from actionprior.envs.kinematics import Array, Chain
from actionprior.envs.robots import Robot
from actionprior.errors import UserError

TOOL_LENGTH = 0.12
"""From flange to the tip of the suction cup [m]."""
TOOL_RADIUS = 0.022
"""Radius of the suction cup [m]."""
PRISM_FILE = "prism.obj"
"""The mesh that the light URDF draws cylinders with; it must lie beside the URDF."""


def data_path() -> Path:
    """The folder of ``pybullet_data``.

    Raises:
        UserError: PyBullet is not installed.
    """
    try:
        module = importlib.import_module("pybullet_data")
    except ModuleNotFoundError as error:
        raise UserError(
            "The simulated robots need PyBullet: install it with `pip install 'actionprior[sim]'`."
        ) from error
    return Path(module.getDataPath())


@cache
def load_chain(robot: Robot) -> Chain:
    """Read a robot's joint chain, from the base to the tip of the vacuum tool.

    Raises:
        UserError: PyBullet (with its data) is not installed, or the URDF has fewer revolute
            joints than the robot needs.
    """
    path = data_path() / robot.urdf
    joints = [j for j in ElementTree.parse(path).getroot().iter("joint") if _moves(j)][: robot.dof]
    if len(joints) < robot.dof:
        raise UserError(
            f"{path} has {len(joints)} revolute joints, but {robot.name} needs {robot.dof}"
        )
    limits = [j.find("limit") for j in joints]

    def limit(name: str) -> Array:
        return np.array([float(e.get(name, "0")) for e in limits if e is not None])

    axes = np.array([_numbers(j.find("axis"), "xyz", (1.0, 0.0, 0.0)) for j in joints])
    tool = np.eye(4)
    tool[2, 3] = robot.flange + TOOL_LENGTH
    return Chain(
        origins=np.array([_origin(j.find("origin")) for j in joints]),
        axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
        # Half a turn either way is all that the tasks use; a continuous wrist has no more.
        lower=np.maximum(limit("lower"), -np.pi),
        upper=np.minimum(limit("upper"), np.pi),
        effort=limit("effort"),
        tool=tool,
    )


def light_urdf(robot: Robot) -> str:
    """Text of a URDF with the robot's kinematics, cylinders for links, and the vacuum tool.

    Link ``i`` hangs on joint ``i`` (1..n); the last link, ``tool``, is the only one that collides.
    """
    chain = load_chain(robot)
    radii = np.linspace(*robot.radius, robot.dof + 1)
    shell, housing = (f"{r} {g} {b} 1" for r, g, b in robot.colors)
    ends = [*chain.origins[:, :3, 3], np.array([0.0, 0.0, robot.flange])]
    parts = ["<?xml version='1.0'?>", f"<robot name='{robot.name}'>"]
    parts += _link("link_0", 4.0, _strut(ends[0], radii[0] * 1.15, housing))
    for i in range(robot.dof):
        mass = float(np.interp(i, (0, robot.dof - 1), (3.0, 0.5)))
        visuals = _strut(ends[i + 1], radii[i], shell)
        thick, long = radii[i] * 1.2, radii[i] * 2
        visuals += _cylinder(_along(chain.axes[i]), (0, 0, 0), thick, long, housing)
        parts += _link(f"link_{i + 1}", mass, visuals)
        parts += [
            f"<joint name='joint_{i + 1}' type='revolute'>",
            f"<parent link='link_{i}'/><child link='link_{i + 1}'/>",
            _origin_tag(chain.origins[i]),
            f"<axis xyz='{_text(chain.axes[i])}'/>",
            f"<limit lower='{chain.lower[i]}' upper='{chain.upper[i]}'"
            f" effort='{chain.effort[i]}' velocity='10'/>",
            "</joint>",
        ]
    parts += [*_tool(), "<joint name='tool_joint' type='fixed'>"]
    mount = np.eye(4)
    mount[2, 3] = robot.flange
    parts += [
        f"<parent link='link_{robot.dof}'/><child link='tool'/>",
        _origin_tag(mount),
        "</joint></robot>",
    ]
    return "\n".join(parts)


def _tool() -> list[str]:
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
    """A cylinder from the link's origin to ``end``, none where they are close."""
    length = float(np.linalg.norm(end))
    if length < 0.03:
        return ""
    middle = tuple(float(v) for v in end / 2)
    return _cylinder(_along(end), middle, radius, length, color)


def _cylinder(
    rpy: tuple[float, ...], xyz: tuple[float, ...], radius: float, length: float, color: str
) -> str:
    return (
        f"<visual><origin xyz='{_text(xyz)}' rpy='{_text(rpy)}'/><geometry>"
        f"<mesh filename='{PRISM_FILE}' scale='{radius:.4f} {radius:.4f} {length:.4f}'/></geometry>"
        f"<material name='c{color.replace(' ', '_')}'><color rgba='{color}'/></material></visual>"
    )


def _along(direction: Array) -> tuple[float, float, float]:
    """Roll, pitch, yaw that turn the z axis to ``direction``."""
    x, y, z = direction / np.linalg.norm(direction)
    return 0.0, float(np.arctan2(np.hypot(x, y), z)), float(np.arctan2(y, x))


def _moves(joint: ElementTree.Element) -> bool:
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
    return f"<origin xyz='{_text(pose[:3, 3])}' rpy='{_text(rpy)}'/>"


def _numbers(
    element: ElementTree.Element | None, name: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    text = None if element is None else element.get(name)
    return default if text is None else tuple(float(v) for v in text.split())


def _text(values: Array | tuple[float, ...]) -> str:
    return " ".join(f"{float(v):.9g}" for v in values)
