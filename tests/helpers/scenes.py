"""A scene of the suite and snapshots of it."""

import numpy as np

from actionprior.envs.scene.scene import Pad, Scene, Thing
from actionprior.envs.tasks import Snapshot

SCENE = Scene(
    things=(
        Thing("red", "cube", 0.0, 0.0, 0.0),
        Thing("red", "disc", 0.1, 0.1, 0.0),
        Thing("blue", "cube", -0.1, 0.1, 0.0),
    ),
    pads=(Pad("green", 0.0, -0.2), Pad("yellow", 0.1, -0.1)),
    target=0,
    goal=0,
)


def snapshot(target=(0.0, 0.0, 0.025), tip=(0.3, 0.3, 0.3), held=None, speed=0.0):
    positions = np.array([target, (0.1, 0.1, 0.013), (-0.1, 0.1, 0.025)])
    return Snapshot(np.array(tip), positions, np.array([speed, 0, 0]), held, held is not None)
