"""Tasks that need memory of a cue at the start, or of what was done before."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.scene.scene import Lamp, Scene, draw_scene
from actionprior.envs.tasks.base import Snapshot, Task
from actionprior.envs.tasks.tabletop import PlaceTask

CUE_SECONDS = 1.0
"""Time from reset in which the lamp shows its colour [s]."""
RETURN_HEIGHT = 0.22
"""Height of the spot to which ``once_each`` returns [m]."""
RETURN_TOLERANCE = 0.03
"""Largest distance of the tip from that spot [m]."""

_LAMP = Lamp(0.205, 0.0)
_LAMP_CLEARANCE = 0.10
_TOUCH_ASIDE, _TOUCH_ABOVE = 0.02, 0.008
"""Largest horizontal and vertical distance of the tip from the top of a touched object [m]."""
_TWIN_DISTANCE = (0.12, 0.30)
"""Smallest and largest distance between the two identical objects [m]."""


class RecallTask(PlaceTask):
    """Place the object on the pad whose colour the lamp showed during the first second."""

    name = "recall"
    pads = 3
    seconds = 8.0
    wordings = (
        "put the {target} on the pad of the colour that was shown",
        "place the {target} on the pad whose colour the lamp showed",
        "put the {target} on the pad that has the colour of the lamp at the start",
    )
    held_out_wordings = (
        "remember the lamp's colour and take the {target} to that pad",
        "bring the {target} to the pad that the lamp asked for",
    )

    def draw(self, rng: np.random.Generator) -> Scene:
        """See :class:`Task`."""
        scene = draw_scene(rng, objects=1, pads=self.pads, accept=self.accepts)
        return scene._replace(lamp=_LAMP)

    def accepts(self, scene: Scene) -> bool:
        """Check that the place of the lamp is free."""
        places = [(t.x, t.y) for t in scene.things] + [(p.x, p.y) for p in scene.pads]
        return all(math.dist(place, _LAMP) > _LAMP_CLEARANCE for place in places)

    def cue(self, scene: Scene, time: float) -> str | None:
        """See :class:`Task`."""
        return scene.goal_pad.color if time < CUE_SECONDS - 1e-6 else None


class OnceEachTask(Task):
    """Touch two identical objects once each, and go back to a spot above their middle in between.

    Images from that spot do not show which object was touched. An episode fails if an object is
    touched twice, touched before the return, or picked up.
    """

    name = "once_each"
    seconds = 8.0
    wordings = (
        "touch both {target}s, one after the other, and go back in between",
        "touch each {target} once, and return to the middle in between",
        "tap both {target}s, going back up between the two",
    )
    held_out_wordings = (
        "visit the two {target}s in turn, passing through the middle",
        "make contact with one {target}, go back, then with the other {target}",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """See :class:`Task`."""
        self._touched: set[int] = set()
        self._last: int | None = None
        self._failed = False

    def draw(self, rng: np.random.Generator) -> Scene:
        """See :class:`Task`. ``order`` holds the two identical objects in random order."""
        scene = draw_scene(rng, accept=self.accepts)
        first, second, third = scene.things
        twin = second._replace(color=first.color, shape=first.shape)
        order = tuple(rng.permutation(2).tolist())
        return scene._replace(things=(first, twin, third), order=order, target=order[0])

    def accepts(self, scene: Scene) -> bool:
        """Check that the two identical objects are 12 to 30 cm apart."""
        first, second = scene.things[:2]
        return _TWIN_DISTANCE[0] <= math.dist(first[2:4], second[2:4]) <= _TWIN_DISTANCE[1]

    def succeeded(self, scene: Scene, now: Snapshot) -> bool:
        """See :class:`Task`."""
        if math.dist(now.tip, return_spot(scene)) < RETURN_TOLERANCE:
            self._last = None
        index = touched(scene, now)
        if now.held is not None:
            self._failed = True
        elif index is not None and index != self._last:
            self._failed |= self._last is not None or index in self._touched
            self._touched.add(index)
            self._last = index
        return not self._failed and self._touched == set(scene.order)


def touched(scene: Scene, now: Snapshot) -> int | None:
    """Return the object in ``scene.order`` that the tip touches from above, or None."""
    for index in scene.order:
        x, y, z = now.positions[index]
        aside = math.hypot(now.tip[0] - x, now.tip[1] - y)
        above = now.tip[2] - z - scene.things[index].height / 2
        if aside < _TOUCH_ASIDE and above < _TOUCH_ABOVE:
            return index
    return None


def return_spot(scene: Scene) -> Array:
    """Compute the spot (3,) above the middle of the initial places of ``scene.order`` [m]."""
    places = np.array([scene.things[i][2:4] for i in scene.order])
    return np.append(places.mean(axis=0), RETURN_HEIGHT)
