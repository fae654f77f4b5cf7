"""Wrapper of PyBullet: one client, and functions that create the bodies of a scene.

PyBullet is untyped and needs the client's number in every call. This wrapper hides both.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from actionprior.envs.arms.robots import Triple
from actionprior.envs.arms.urdf import data_path
from actionprior.envs.scene.scene import COLORS, SHAPES, Pad, Thing

_OBJECT_MASS = 0.1
_TABLE_MIDDLE = (0.02, 0.0, -0.02)
_TABLE_HALF = (0.62, 0.55, 0.02)
_TABLE_COLOR = (0.70, 0.66, 0.60)
_LAMP_HALF = (0.03, 0.03, 0.006)
LAMP_DARK = (0.35, 0.35, 0.36)
"""RGB of a lamp that is off."""


class Bullet:
    """PyBullet's functions and constants, bound to a separate simulator.

    Raises:
        UserError: PyBullet is not installed.
    """

    def __init__(self) -> None:
        data_path()  # raises an error with the install command if missing
        self._module: ModuleType = importlib.import_module("pybullet")
        self._client: int = self._module.connect(self._module.DIRECT)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  PyBullet is untyped
        found = getattr(self._module, name)
        if callable(found):
            found = functools.partial(found, physicsClientId=self._client)
        setattr(self, name, found)
        return found

    def close(self) -> None:
        """Disconnect from the simulator. Calling this twice is safe."""
        if self._client >= 0:
            self._module.disconnect(physicsClientId=self._client)
            self._client = -1


def make_table(bullet: Bullet) -> int:
    """Create the table, whose top is the plane z = 0."""
    collision = bullet.createCollisionShape(bullet.GEOM_BOX, halfExtents=_TABLE_HALF)
    visual = _draw_box(bullet, _TABLE_HALF, _TABLE_COLOR)
    return int(bullet.createMultiBody(0.0, collision, visual, basePosition=_TABLE_MIDDLE))


def make_pad(bullet: Bullet, pad: Pad) -> int:
    """Create a pad, which is drawn but does not collide."""
    visual = _draw_box(bullet, (pad.size / 2, pad.size / 2, 0.001), COLORS[pad.color])
    return int(bullet.createMultiBody(0.0, -1, visual))


def make_lamp(bullet: Bullet) -> int:
    """Create a lamp that is off. It is drawn but does not collide."""
    visual = _draw_box(bullet, _LAMP_HALF, LAMP_DARK)
    return int(bullet.createMultiBody(0.0, -1, visual))


def make_thing(bullet: Bullet, thing: Thing, prism: Path) -> int:
    """Create an object. Cylinders are drawn with the mesh file ``prism``."""
    shape, color = SHAPES[thing.shape], COLORS[thing.color]
    half = (shape.radius, shape.radius, shape.height / 2)
    if shape.box:
        collision = bullet.createCollisionShape(bullet.GEOM_BOX, halfExtents=half)
        visual = _draw_box(bullet, half, color)
    else:
        collision = bullet.createCollisionShape(
            bullet.GEOM_CYLINDER, radius=shape.radius, height=shape.height
        )
        visual = bullet.createVisualShape(
            bullet.GEOM_MESH,
            fileName=str(prism),
            meshScale=(shape.radius, shape.radius, shape.height),
            rgbaColor=(*color, 1.0),
        )
    body = int(bullet.createMultiBody(_OBJECT_MASS, collision, visual))
    bullet.changeDynamics(
        body,
        -1,
        lateralFriction=0.6,
        spinningFriction=0.003,
        linearDamping=0.2,
        angularDamping=0.4,
    )
    return body


def _draw_box(bullet: Bullet, half: Triple, color: Triple) -> int:
    shape = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=half, rgbaColor=(*color, 1.0))
    return int(shape)
