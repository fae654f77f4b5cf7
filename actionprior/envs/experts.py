"""Scripted experts: closed-loop, smooth, for every robot, task and control mode.

An expert looks at the true state of the simulator (never at the image), says where the tool's tip
should go, and moves the *held target* there with limited speed and acceleration. What the motion
looks like as an action is left to the control mode, so one expert serves all three.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs.env import TabletopEnv
from actionprior.envs.kinematics import Array, Pose, solve_ik
from actionprior.envs.scene import SHAPES, Scene
from actionprior.envs.tasks import REACH_HEIGHT, Snapshot
from actionprior.envs.urdf import TOOL_RADIUS
from actionprior.errors import UserError

_SPEED = 0.021
"""Mean top speed of the tip [m a step]; each episode's differs a little."""
_ACCELERATION = 0.010
"""Largest change of the tip's velocity [m a step, a step]."""
_HOVER = 0.10
"""Height to travel at above what is approached [m]."""

_RETREAT = 0.25
"""Height of the tip at which a finished expert waits [m, table]."""


class Aim(NamedTuple):
    """Where the tip should go next (3,) [m, table], the suction, and a limit on the speed."""

    tip: Array
    suction: bool = False
    speed: float = 1.0


class Plan(ABC):
    """Says the next aim; its state lasts one episode."""

    @abstractmethod
    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """The aim for the current state."""


class ReachPlan(Plan):
    """Go to just above the target."""

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        x, y, z = now.positions[scene.target]
        height = z + scene.target_thing.height / 2 + REACH_HEIGHT
        return Aim(_funnel(now.tip, (x, y, height)))


class LiftPlan(Plan):
    """Come down on the target with suction on, then go up."""

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        if now.held == scene.target:
            return Aim(np.array([now.tip[0], now.tip[1], 0.30]), suction=True)
        return _grasp(scene, now)


class PlacePlan(Plan):
    """Grasp, carry, put down on the pad, let go, back off."""

    def __init__(self) -> None:
        self._released = False

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        pad, thing = scene.goal_pad, scene.target_thing
        x, y, z = now.positions[scene.target]
        off_pad = math.hypot(x - pad.x, y - pad.y)
        bottom = z - thing.height / 2
        if self._released and off_pad > 0.04 and bottom < 0.005:
            self._released = False
        if self._released:
            return _retreat(now)
        if now.held != scene.target:
            return _grasp(scene, now)
        if off_pad < 0.015 and bottom < 0.008:
            self._released = True
            return _retreat(now)
        # The object leads: the tip goes where it brings the object's bottom to the pad.
        offset = now.tip - (x, y, bottom)
        if off_pad > 0.05 and bottom < 0.05:
            return Aim(np.array([now.tip[0], now.tip[1], offset[2] + _HOVER]), suction=True)
        goal = _funnel(now.tip - offset, (pad.x, pad.y, 0.003)) + offset
        return Aim(goal, suction=True)


class PushPlan(Plan):
    """Come down behind the target, push it along the line to the pad, back off."""

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
            return _retreat(now)
        if self._pushing and (along > -0.5 * gap or abs(across) > 0.03):
            self._pushing = False
        if not self._pushing:
            behind = here - forward * (gap + 0.022)
            near = math.hypot(*(now.tip[:2] - behind)) < 0.015
            if near and now.tip[2] < low + 0.02:
                self._pushing = True
            else:
                goal = (float(behind[0]), float(behind[1]), low)
                return Aim(_funnel(now.tip, goal, hover=thing.height + 0.04))
        # Steer so that the contact stays on the line through the object's centre and the pad.
        ahead = here + forward * 0.03 - side * np.clip(1.2 * across, -0.03, 0.03)
        return Aim(np.array([ahead[0], ahead[1], low]), speed=0.62)


_PLANS: dict[str, type[Plan]] = {
    "reach": ReachPlan,
    "lift": LiftPlan,
    "place": PlacePlan,
    "push": PushPlan,
}


class Expert:
    """The scripted expert of an environment.

    Args:
        env: a :class:`TabletopEnv`, wrapped or not.
        seed: draws the speed of each episode.

    Raises:
        UserError: the task has no expert.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 0) -> None:
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, TabletopEnv) or unwrapped.task_name not in _PLANS:
            raise UserError(f"there is no expert for {unwrapped!r}; tasks: {sorted(_PLANS)}")
        self._env = unwrapped
        self._base = np.array(unwrapped.robot.base)
        self._upright = unwrapped.chain.forward(unwrapped.home).rotation
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Start a new episode; call it after the environment's reset."""
        rng = np.random.default_rng(seed)
        self._plan = _PLANS[self._env.task_name]()
        self._speed = _SPEED * float(rng.uniform(0.85, 1.15))
        self._velocity: Array = np.zeros(3)

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """The action (A,) for the environment's current state; ``observation`` is not looked at.

        Raises:
            UserError: the environment was not reset.
        """
        env = self._env
        if env.scene is None:
            raise UserError("reset the environment before asking its expert")
        aim = self._plan.aim(env.scene, env.snapshot())
        held = env.control.target
        self._advance(aim.tip - self._base - held.position, self._speed * aim.speed)
        goal = Pose(held.position + self._velocity, self._upright)
        q: Array = env.control.target_q
        if env.control.free_yaw:
            q = solve_ik(env.chain, q, goal, free_yaw=True, posture=env.home, iterations=8).q
        motion = env.control.motion_to(goal, q)
        action = np.append(motion, float(aim.suction)).astype(np.float32)
        return np.clip(action, env.action_space.low, env.action_space.high)

    def _advance(self, way: Array, top_speed: float) -> None:
        """Turn the velocity towards ``way`` (3,) [m], limited in speed and acceleration."""
        distance = float(np.sqrt(way @ way))
        # v² = 2 a d brakes in time; half the way in a step lands softly.
        speed = min(top_speed, math.sqrt(2 * 0.6 * _ACCELERATION * distance), 0.6 * distance)
        change = way * (speed / max(distance, 1e-9)) - self._velocity
        size = float(np.sqrt(change @ change))
        self._velocity = self._velocity + change * min(1.0, _ACCELERATION / max(size, 1e-9))


def _retreat(now: Snapshot) -> Aim:
    """Straight up, then wait: what a demonstration shows last should be worth repeating."""
    return Aim(np.array([now.tip[0], now.tip[1], _RETREAT]))


def _grasp(scene: Scene, now: Snapshot) -> Aim:
    """Come down on the target; the suction goes on just before the cup touches."""
    x, y, z = now.positions[scene.target]
    top = z + scene.target_thing.height / 2
    aside = math.hypot(now.tip[0] - x, now.tip[1] - y)
    near = aside < 0.02 and now.tip[2] < top + 0.05
    return Aim(_funnel(now.tip, (x, y, top - 0.001)), suction=near)


def _funnel(tip: Array, goal: tuple[float, float, float], hover: float = _HOVER) -> Array:
    """Aim at ``goal``, but only as low as the distance in the plane allows."""
    aside = math.hypot(tip[0] - goal[0], tip[1] - goal[1])
    height = goal[2] + min(hover, 1.5 * max(0.0, aside - 0.006))
    return np.array([goal[0], goal[1], height])
