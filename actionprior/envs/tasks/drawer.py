"""Task with a drawer that has to be opened before an object fits in."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.scene.drawer_body import INNER, Drawer
from actionprior.envs.scene.scene import WORKSPACE, Scene, draw_scene
from actionprior.envs.tasks.base import Snapshot, Task, rests

_DRAWER_X = 0.05
"""Largest distance of the drawer from the middle of the table, along x [m]."""
_OBJECTS_FROM = 0.085
"""Smallest distance of the objects from the middle, on the side without the drawer [m]."""
_GAP = 0.092


class DrawerTask(Task):
    """Pull a drawer open and put an object in it."""

    name = "drawer"
    cup = True
    seconds = 16.0
    wordings = (
        "open the drawer and put the {target} in it",
        "pull the drawer open and place the {target} inside",
        "put the {target} into the drawer, which has to be opened first",
    )
    held_out_wordings = (
        "stow the {target} away in the drawer",
        "the {target} belongs in the drawer: open it and drop the {target} in",
    )

    def draw(self, rng: np.random.Generator) -> Scene:
        """See :class:`Task`."""
        scene = draw_scene(rng)
        drawer = Drawer(float(rng.uniform(-_DRAWER_X, _DRAWER_X)), 1 if rng.random() < 0.5 else -1)
        while True:
            x = rng.uniform(-WORKSPACE[0], WORKSPACE[0], len(scene.things))
            y = -drawer.side * rng.uniform(_OBJECTS_FROM, WORKSPACE[1], len(scene.things))
            places = list(zip(x.tolist(), y.tolist(), strict=True))
            if all(math.dist(a, b) > _GAP for i, a in enumerate(places) for b in places[:i]):
                break
        things = tuple(
            thing._replace(x=x, y=y) for thing, (x, y) in zip(scene.things, places, strict=True)
        )
        return scene._replace(things=things, drawer=drawer)

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        if scene.drawer is None or now.held is not None or now.suction:
            return False
        x, y, floor = scene.drawer.middle(now.opening)
        there = now.positions[scene.target]
        inside = max(abs(there[0] - x), abs(there[1] - y)) < INNER / 2
        return bool(inside) and rests(scene, now, scene.target, floor)
