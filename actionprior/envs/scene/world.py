"""One simulated world: table, one or two arms, objects, camera.

The world draws no random numbers. Each reset rebuilds it from scratch: otherwise PyBullet would
keep solver and contact caches, and episodes would not be reproducible bit by bit.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionprior.envs.arms.gripper import Gripper
from actionprior.envs.arms.jaws import Jaws
from actionprior.envs.arms.kinematics import Array
from actionprior.envs.arms.robots import PHYSICS_HZ, Robot, Station, Triple
from actionprior.envs.arms.urdf import PRISM_FILE, light_urdf
from actionprior.envs.arms.vacuum import Vacuum
from actionprior.envs.scene.bullet import (
    LAMP_DARK,
    Bullet,
    make_lamp,
    make_pad,
    make_table,
    make_thing,
)
from actionprior.envs.scene.drawer_body import drawer_urdf
from actionprior.envs.scene.meshes import prism_obj
from actionprior.envs.scene.scene import COLORS, Scene

CAMERA_EYE = (0.50, 0.0, 0.64)
"""Position of the camera, opposite the robot, so that the arm rarely hides an object [m]."""
CAMERA_TARGET = (-0.065, 0.0, 0.03)
"""Point that the camera looks at [m]."""
CAMERA_FOV = 42.0
"""Horizontal and vertical field of view [degrees]."""

_MOTOR_TORQUE = 300.0
"""Motor torque [N m], large enough to track every target. The light links do not have the real
arm's masses."""
_MOTOR_GAIN = 0.4
_DRAWER_FRICTION = 2.0
"""Largest force under which a drawer does not move [N]."""
_TOOL_FRICTION = 2.0
"""Friction of rubber cups and fingertips, so that a push tolerates an error of millimetres. Bullet
multiplies it by the other body's friction."""


class World:
    """A PyBullet world with one robot or station. Positions are in table coordinates [m].

    For a station, joint angles ``q`` (n,) are those of the first arm, then those of the second.

    Attributes:
        grippers: The gripper of each arm, in order. :meth:`build` recreates them.

    Raises:
        UserError: PyBullet is not installed.
    """

    def __init__(self, robot: Robot | Station) -> None:
        self._bullet = Bullet()
        self._folder = tempfile.TemporaryDirectory(prefix="actionprior-")
        self._robots = robot.arms
        self._urdfs = [Path(self._folder.name, f"arm_{i}.urdf") for i in range(len(robot.arms))]
        for arm, urdf in zip(robot.arms, self._urdfs, strict=True):
            urdf.write_text(light_urdf(arm))
        self._prism = Path(self._folder.name, PRISM_FILE)
        self._prism.write_text(prism_obj())
        self._substeps = PHYSICS_HZ // robot.control_hz
        self._control_hz = robot.control_hz
        stops = np.cumsum([0, *(arm.dof for arm in robot.arms)]).tolist()
        self._parts = [slice(*ends) for ends in itertools.pairwise(stops)]
        self._joints = [list(range(arm.dof)) for arm in robot.arms]
        self._arms: list[int] = []
        self._things: list[int] = []
        self._pads: list[int] = []
        self.grippers: list[Gripper] = []
        self._lamp: int | None = None
        self._drawer: int | None = None
        self._drawer_urdf = Path(self._folder.name, "drawer.urdf")
        self._drawer_urdf.write_text(drawer_urdf())

    def close(self) -> None:
        """Disconnect from PyBullet. Calling this twice is safe."""
        self._bullet.close()
        self._folder.cleanup()

    def build(self, scene: Scene, q: Array) -> None:
        """Rebuild the world with the objects of ``scene`` and resting arms at ``q`` (n,) [rad]."""
        bullet = self._bullet
        bullet.resetSimulation()
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=1.0 / PHYSICS_HZ,
            numSolverIterations=30,
            deterministicOverlappingPairs=1,
        )
        bullet.setGravity(0, 0, -9.81)
        make_table(bullet)
        self._arms = [
            self._load_arm(robot, urdf)
            for robot, urdf in zip(self._robots, self._urdfs, strict=True)
        ]
        self._pads = [make_pad(bullet, pad) for pad in scene.pads]
        self._lamp = None if scene.lamp is None else make_lamp(bullet)
        self._things = [make_thing(bullet, thing, self._prism) for thing in scene.things]
        self._drawer = None if scene.drawer is None else self._load_drawer()
        self.grippers = [
            self._make_gripper(robot, arm)
            for robot, arm in zip(self._robots, self._arms, strict=True)
        ]
        self.arrange(scene, q)

    def arrange(self, scene: Scene, q: Array) -> None:
        """Move the existing bodies to the places of ``scene``, which must have the same shapes."""
        for body, pad in zip(self._pads, scene.pads, strict=True):
            self._set_pose(body, (pad.x, pad.y, 0.0005), 0.0)
        if self._lamp is not None and scene.lamp is not None:
            self._set_pose(self._lamp, (*scene.lamp, 0.006), 0.0)
        if self._drawer is not None and scene.drawer is not None:
            self._set_pose(self._drawer, scene.drawer.base, scene.drawer.yaw)
            self._bullet.resetJointState(self._drawer, 0, 0.0)
        for i, thing in enumerate(scene.things):
            self.place_object(i, (thing.x, thing.y, thing.height / 2), thing.yaw)
        for arm, joints, part in zip(self._arms, self._joints, self._parts, strict=True):
            self._bullet.resetJointStatesMultiDof(arm, joints, [[v] for v in q[part].tolist()])

    def recolor(self, scene: Scene) -> None:
        """Give objects and pads the colours of ``scene``."""
        colors = [item.color for item in scene.things] + [item.color for item in scene.pads]
        for body, color in zip([*self._things, *self._pads], colors, strict=True):
            self._bullet.changeVisualShape(body, -1, rgbaColor=(*COLORS[color], 1.0))

    def set_lamp(self, color: str | None) -> None:
        """Set the lamp's colour, or switch it off with None. No effect without a lamp."""
        if self._lamp is not None:
            rgb = LAMP_DARK if color is None else COLORS[color]
            self._bullet.changeVisualShape(self._lamp, -1, rgbaColor=(*rgb, 1.0))

    def place_object(self, index: int, position: Triple, yaw: float) -> None:
        """Put an object upright with its centre at ``position`` [m], rotated by ``yaw`` [rad]."""
        self._set_pose(self._things[index], position, yaw)

    def open_drawer(self, opening: float) -> None:
        """Set the drawer's opening [m]. No effect without a drawer."""
        if self._drawer is not None:
            self._bullet.resetJointState(self._drawer, 0, opening)

    def step(self, start: Array, end: Array) -> None:
        """Simulate a control step: motors follow a ramp from ``start`` to ``end`` (n,) [rad]."""
        bullet = self._bullet
        speeds = (end - start) * self._control_hz
        for i in range(1, self._substeps + 1):
            ramp = start + (end - start) * (i / self._substeps)
            for arm, joints, part in zip(self._arms, self._joints, self._parts, strict=True):
                bullet.setJointMotorControlArray(
                    arm,
                    joints,
                    bullet.POSITION_CONTROL,
                    targetPositions=ramp[part].tolist(),
                    targetVelocities=speeds[part].tolist(),
                    forces=[_MOTOR_TORQUE] * len(joints),
                    positionGains=[_MOTOR_GAIN] * len(joints),
                )
            bullet.stepSimulation()

    @property
    def held(self) -> int | None:
        """Index of the object that the first arm holds, or None. See :class:`Vacuum`."""
        return self.grippers[0].held

    def opening(self) -> float:
        """Read the drawer's opening [m], which is 0 without a drawer."""
        if self._drawer is None:
            return 0.0
        return float(self._bullet.getJointState(self._drawer, 0)[0])

    def joints(self) -> Array:
        """Read the joint angles (n,) [rad]."""
        states = self._bullet.getJointStates
        return np.array(
            [
                state[0]
                for arm, joints in zip(self._arms, self._joints, strict=True)
                for state in states(arm, joints)
            ]
        )

    def positions(self) -> Array:
        """Read the centres (objects, 3) of the objects [m]."""
        where = self._bullet.getBasePositionAndOrientation
        return np.array([where(body)[0] for body in self._things])

    def speeds(self) -> Array:
        """Read the speeds (objects,) of the objects [m/s]."""
        velocity = self._bullet.getBaseVelocity
        linear = np.array([velocity(body)[0] for body in self._things])
        return np.asarray(np.sqrt(np.square(linear).sum(axis=1)))

    def render(self, size: int) -> NDArray[np.uint8]:
        """Render the camera's image (size, size, 3)."""
        bullet = self._bullet
        image = bullet.getCameraImage(
            size,
            size,
            viewMatrix=bullet.computeViewMatrix(CAMERA_EYE, CAMERA_TARGET, (0.0, 0.0, 1.0)),
            projectionMatrix=bullet.computeProjectionMatrixFOV(CAMERA_FOV, 1.0, 0.1, 3.0),
            lightDirection=(0.5, 0.6, 1.4),
            lightColor=(1.0, 1.0, 1.0),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.05,
            shadow=0,  # shadows take more time than everything else
            renderer=bullet.ER_TINY_RENDERER,
            flags=bullet.ER_NO_SEGMENTATION_MASK,
        )[2]
        # Without NumPy support PyBullet gives a flat tuple.
        return np.asarray(image, dtype=np.uint8).reshape(size, size, 4)[..., :3].copy()

    def _load_arm(self, robot: Robot, urdf: Path) -> int:
        bullet = self._bullet
        arm = bullet.loadURDF(
            str(urdf),
            basePosition=robot.base,
            baseOrientation=_about_z(robot.yaw),
            useFixedBase=True,
            flags=bullet.URDF_USE_INERTIA_FROM_FILE,
        )
        # The tool's links come after the link of the last joint.
        for link in range(robot.dof, bullet.getNumJoints(arm)):
            bullet.changeDynamics(arm, link, lateralFriction=_TOOL_FRICTION)
        return int(arm)

    def _make_gripper(self, robot: Robot, arm: int) -> Gripper:
        if robot.gripper == "jaws":
            return Jaws(self._bullet, arm, robot.dof, self._things, robot.control_hz)
        handle = None if self._drawer is None else (self._drawer, 0)
        return Vacuum(self._bullet, arm, robot.dof, self._things, handle)

    def _load_drawer(self) -> int:
        bullet = self._bullet
        drawer = int(bullet.loadURDF(str(self._drawer_urdf), useFixedBase=True))
        # A motor at zero velocity acts as friction: the drawer stays where it was pulled to.
        bullet.setJointMotorControl2(
            drawer, 0, bullet.VELOCITY_CONTROL, targetVelocity=0.0, force=_DRAWER_FRICTION
        )
        return drawer

    def _set_pose(self, body: int, position: Triple, yaw: float) -> None:
        self._bullet.resetBasePositionAndOrientation(body, position, _about_z(yaw))


def _about_z(yaw: float) -> tuple[float, float, float, float]:
    return (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
