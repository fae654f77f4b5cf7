"""Plan of the task with a drawer."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.experts.plan import Aim, PickAndPlace, Plan, funnel, retreat
from actionprior.envs.scene.drawer_body import TRAVEL
from actionprior.envs.scene.scene import Scene
from actionprior.envs.tasks import Snapshot
from actionprior.errors import UserError

OPEN = 0.105
"""Opening at which the drawer is open enough [m]."""
_CLEAR = 0.05
"""Height above the released tab at which the tip is clear of it [m]."""


class DrawerPlan(Plan):
    """Pull the drawer open by its tab, release the tab, and put the object in."""

    def __init__(self) -> None:
        self._put: PickAndPlace | None = None

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        if scene.drawer is None:
            raise UserError("this scene has no drawer")
        tab = scene.drawer.handle(now.opening)
        pulls = now.held == len(scene.things)
        if self._put is None and now.opening < OPEN:
            if pulls:
                _, y, _ = scene.drawer.handle(TRAVEL + 0.03)
                return Aim(np.array([tab[0], y, tab[2]]), suction=True, speed=0.8)
            aside = math.hypot(now.tip[0] - tab[0], now.tip[1] - tab[1])
            near = aside < 0.015 and now.tip[2] < tab[2] + 0.05
            return Aim(funnel(now.tip, (tab[0], tab[1], tab[2] - 0.001)), suction=near)
        if self._put is None:
            if pulls or now.tip[2] < tab[2] + _CLEAR:
                return retreat(now)
            self._put = PickAndPlace(scene.target, within=0.012, slope=5.0, rise=0.085)
        return self._put.aim(scene, now, scene.drawer.middle(now.opening))
