"""Plans of the short tasks."""

from __future__ import annotations

import math

import numpy as np

from actionprior.envs.arms.urdf import TOOL_RADIUS
from actionprior.envs.experts.plan import Aim, PickAndPlace, Plan, funnel, grasp, retreat
from actionprior.envs.scene.scene import SHAPES, Scene
from actionprior.envs.tasks import REACH_HEIGHT, Snapshot


class ReachPlan(Plan):
    """Go to just above the target."""

    opens = False

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        x, y, z = now.positions[scene.target]
        height = z + scene.target_thing.height / 2 + REACH_HEIGHT
        return Aim(funnel(now.tip, (x, y, height)))


class LiftPlan(Plan):
    """Grasp the target, then go up."""

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        if now.held == scene.target:
            return Aim(np.array([now.tip[0], now.tip[1], 0.30]), suction=True)
        return grasp(scene, now, scene.target)


class PlacePlan(Plan):
    """Grasp the target, carry it to the pad, put it down, release it, and retreat."""

    def __init__(self) -> None:
        self._put: PickAndPlace | None = None

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        if self._put is None:
            self._put = PickAndPlace(scene.target)
        return self._put.aim(scene, now, (scene.goal_pad.x, scene.goal_pad.y, 0.0))


class PushPlan(Plan):
    """Descend behind the target, push it along the line to the pad, and retreat."""

    opens = False

    def __init__(self) -> None:
        self._pushing = False
        self._done = False

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        pad, thing = scene.goal_pad, scene.target_thing
        here = now.positions[scene.target, :2]
        way = np.array([pad.x, pad.y]) - here
        off_pad = float(np.hypot(*way))
        forward = way / max(off_pad, 1e-6)
        side = np.array([-forward[1], forward[0]])
        gap = SHAPES[thing.shape].radius * (1.25 if SHAPES[thing.shape].box else 1.0) + TOOL_RADIUS
        from_object = now.tip[:2] - here
        along, across = float(from_object @ forward), float(from_object @ side)
        low = 0.012
        self._done = off_pad < (0.03 if self._done else 0.012)
        if self._done:
            return retreat(now)
        if self._pushing and (along > -0.5 * gap or abs(across) > 0.03):
            self._pushing = False
        if not self._pushing:
            behind = here - forward * (gap + 0.022)
            near = math.hypot(*(now.tip[:2] - behind)) < 0.015
            if near and now.tip[2] < low + 0.02:
                self._pushing = True
            else:
                goal = (float(behind[0]), float(behind[1]), low)
                return Aim(funnel(now.tip, goal, hover=thing.height + 0.04))
        # Steer so that the contact point stays on the line through the object's centre and the pad.
        ahead = here + forward * 0.03 - side * np.clip(1.2 * across, -0.03, 0.03)
        return Aim(np.array([ahead[0], ahead[1], low]), speed=0.62)
