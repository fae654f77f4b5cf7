"""One simulated world: table, robot, objects, camera.

Everything random is decided outside. Each reset rebuilds the world from nothing, because PyBullet
carries solver and contact caches over otherwise, and episodes would not repeat bit by bit.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionprior.envs.bullet import (
    LAMP_DARK,
    Bullet,
    Triple,
    make_lamp,
    make_pad,
    make_table,
    make_thing,
)
from actionprior.envs.drawer import drawer_urdf
from actionprior.envs.kinematics import Array
from actionprior.envs.meshes import prism_obj
from actionprior.envs.robots import CONTROL_HZ, Robot
from actionprior.envs.scene import COLORS, Scene
from actionprior.envs.urdf import PRISM_FILE, light_urdf
from actionprior.envs.vacuum import Vacuum

SUBSTEPS = 12
"""Physics steps in a control step: 120 Hz."""
CAMERA_EYE = (0.50, 0.0, 0.64)
"""Where the camera stands: opposite the robot, so that the arm seldom hides an object [m]."""
CAMERA_TARGET = (-0.065, 0.0, 0.03)
CAMERA_FOV = 42.0
"""Field of view, both ways [degrees]."""

_MOTOR_TORQUE = 300.0
"""Enough that the motors track every target [N m]; the light links' masses are not the arm's."""
_MOTOR_GAIN = 0.4
_DRAWER_FRICTION = 2.0
"""Force that a drawer withstands without moving [N]."""
_CUP_FRICTION = 2.0
"""A rubber cup grips what it pushes, and the push forgives an error of millimetres; Bullet
multiplies it by the other body's."""


class World:
    """A PyBullet world with one robot; positions are table coordinates [m].

    Raises:
        UserError: PyBullet is not installed.
    """

    def __init__(self, robot: Robot) -> None:
        self._bullet = Bullet()
        self._folder = tempfile.TemporaryDirectory(prefix="actionprior-")
        self._urdf = Path(self._folder.name, f"{robot.name}.urdf")
        self._urdf.write_text(light_urdf(robot))
        self._prism = Path(self._folder.name, PRISM_FILE)
        self._prism.write_text(prism_obj())
        self._robot = robot
        self._joints = list(range(robot.dof))
        self._arm = -1
        self._things: list[int] = []
        self._pads: list[int] = []
        self._lamp: int | None = None
        self._drawer: int | None = None
        self._drawer_urdf = Path(self._folder.name, "drawer.urdf")
        self._drawer_urdf.write_text(drawer_urdf())
        self._vacuum = Vacuum(self._bullet, self._arm, robot.dof, [])

    def close(self) -> None:
        """Disconnect from PyBullet; closing twice does no harm."""
        self._bullet.close()
        self._folder.cleanup()

    def build(self, scene: Scene, q: Array) -> None:
        """Start afresh with the objects of ``scene`` and the arm at rest at ``q`` (n,) [rad]."""
        bullet = self._bullet
        bullet.resetSimulation()
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=1.0 / (SUBSTEPS * CONTROL_HZ),
            numSolverIterations=30,
            deterministicOverlappingPairs=1,
        )
        bullet.setGravity(0, 0, -9.81)
        make_table(bullet)
        self._arm = bullet.loadURDF(
            str(self._urdf),
            basePosition=self._robot.base,
            useFixedBase=True,
            flags=bullet.URDF_USE_INERTIA_FROM_FILE,
        )
        tool = self._robot.dof  # the link after the last joint's
        bullet.changeDynamics(self._arm, tool, lateralFriction=_CUP_FRICTION)
        self._pads = [make_pad(bullet, pad) for pad in scene.pads]
        self._lamp = None if scene.lamp is None else make_lamp(bullet)
        self._things = [make_thing(bullet, thing, self._prism) for thing in scene.things]
        self._drawer = None if scene.drawer is None else self._load_drawer()
        handle = None if self._drawer is None else (self._drawer, 0)
        self._vacuum = Vacuum(bullet, self._arm, tool, self._things, handle)
        self.arrange(scene, q)

    def arrange(self, scene: Scene, q: Array) -> None:
        """Move what :meth:`build` made to the places of ``scene``, a scene of the same shapes."""
        for body, pad in zip(self._pads, scene.pads, strict=True):
            self._put(body, (pad.x, pad.y, 0.0005), 0.0)
        if self._lamp is not None and scene.lamp is not None:
            self._put(self._lamp, (*scene.lamp, 0.006), 0.0)
        if self._drawer is not None and scene.drawer is not None:
            self._put(self._drawer, scene.drawer.base, scene.drawer.yaw)
            self._bullet.resetJointState(self._drawer, 0, 0.0)
        for i, thing in enumerate(scene.things):
            self.place(i, (thing.x, thing.y, thing.height / 2), thing.yaw)
        self._bullet.resetJointStatesMultiDof(self._arm, self._joints, [[v] for v in q.tolist()])

    def recolor(self, scene: Scene) -> None:
        """Paint the objects and pads in the colours of ``scene``."""
        colors = [item.color for item in scene.things] + [item.color for item in scene.pads]
        for body, color in zip([*self._things, *self._pads], colors, strict=True):
            self._bullet.changeVisualShape(body, -1, rgbaColor=(*COLORS[color], 1.0))

    def light(self, color: str | None) -> None:
        """Let the scene's lamp, if there is one, show a colour, or go dark."""
        if self._lamp is not None:
            rgb = LAMP_DARK if color is None else COLORS[color]
            self._bullet.changeVisualShape(self._lamp, -1, rgbaColor=(*rgb, 1.0))

    def place(self, index: int, position: Triple, yaw: float) -> None:
        """Put an object upright, its centre at ``position`` [m], turned by ``yaw`` [rad]."""
        self._put(self._things[index], position, yaw)

    def step(self, start: Array, end: Array) -> None:
        """One control step: the motors follow a ramp from ``start`` to ``end`` (n,) [rad]."""
        bullet = self._bullet
        speeds = ((end - start) * CONTROL_HZ).tolist()
        forces = [_MOTOR_TORQUE] * len(speeds)
        gains = [_MOTOR_GAIN] * len(speeds)
        for i in range(1, SUBSTEPS + 1):
            bullet.setJointMotorControlArray(
                self._arm,
                self._joints,
                bullet.POSITION_CONTROL,
                targetPositions=(start + (end - start) * (i / SUBSTEPS)).tolist(),
                targetVelocities=speeds,
                forces=forces,
                positionGains=gains,
            )
            bullet.stepSimulation()

    def suck(self, on: bool) -> None:
        """Switch the vacuum on or off; on, it catches what touches the cup's face now."""
        self._vacuum.switch(on)

    @property
    def held(self) -> int | None:
        """Index of the object on the suction cup, or None; see :class:`Vacuum`."""
        return self._vacuum.held

    def opening(self) -> float:
        """How far the drawer is open [m]; 0 where there is none."""
        if self._drawer is None:
            return 0.0
        return float(self._bullet.getJointState(self._drawer, 0)[0])

    def joints(self) -> Array:
        """Measured joint angles (n,) [rad]."""
        return np.array([s[0] for s in self._bullet.getJointStates(self._arm, self._joints)])

    def positions(self) -> Array:
        """Centres (objects, 3) of the objects [m]."""
        where = self._bullet.getBasePositionAndOrientation
        return np.array([where(body)[0] for body in self._things])

    def speeds(self) -> Array:
        """Speeds (objects,) of the objects [m/s]."""
        velocity = self._bullet.getBaseVelocity
        linear = np.array([velocity(body)[0] for body in self._things])
        return np.asarray(np.sqrt(np.square(linear).sum(axis=1)))

    def render(self, size: int) -> NDArray[np.uint8]:
        """The camera's image (size, size, 3)."""
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
            shadow=0,  # it costs more than all the rest
            renderer=bullet.ER_TINY_RENDERER,
            flags=bullet.ER_NO_SEGMENTATION_MASK,
        )[2]
        # Without NumPy support PyBullet gives a flat tuple.
        return np.asarray(image, dtype=np.uint8).reshape(size, size, 4)[..., :3].copy()

    def _load_drawer(self) -> int:
        bullet = self._bullet
        drawer = int(bullet.loadURDF(str(self._drawer_urdf), useFixedBase=True))
        # Friction of the slide: it stays where it was pulled to.
        bullet.setJointMotorControl2(
            drawer, 0, bullet.VELOCITY_CONTROL, targetVelocity=0.0, force=_DRAWER_FRICTION
        )
        return drawer

    def _put(self, body: int, position: Triple, yaw: float) -> None:
        turn = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
        self._bullet.resetBasePositionAndOrientation(body, position, turn)
