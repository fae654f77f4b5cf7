"""Scripted experts: closed-loop, smooth, for every robot, task and control mode.

An expert looks at the true state of the simulator (never at the image), says where the tool's tip
should go, and moves the *held target* there with limited speed and acceleration. What the motion
looks like as an action is left to the control mode, so one expert serves all three.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs.arm import Arm
from actionprior.envs.env import TabletopEnv
from actionprior.envs.handover import HandoverPlan
from actionprior.envs.kinematics import TOOL_DOWN, Array, Pose, rotation_matrix, solve_ik
from actionprior.envs.plan import HOVER, Aim, Plan, funnel, jaw_depth
from actionprior.envs.scene import SHAPES, Scene
from actionprior.envs.tasks import REACH_HEIGHT, Snapshot
from actionprior.envs.urdf import TOOL_RADIUS
from actionprior.errors import UserError

_HZ = 10
"""The rate that the numbers below are for; at another one they are scaled to the same speeds."""
_SPEED = 0.021
"""Mean top speed of the tip [m a step]; each episode's differs a little."""
_ACCELERATION = 0.010
"""Largest change of the tip's velocity [m a step, a step]."""
_TURN = 0.12
"""Top speed of a change of the tool's direction [rad a step]."""
_TURN_ACCELERATION = 0.03
"""Largest change of that speed [rad a step, a step]."""
_RETREAT = 0.25
"""Height of the tip at which a finished expert waits [m, table]."""


class ReachPlan(Plan):
    """Go to just above the target."""

    opens = False

    def aim(self, scene: Scene, now: Snapshot) -> Aim:
        """See :class:`Plan`."""
        x, y, z = now.positions[scene.target]
        height = z + scene.target_thing.height / 2 + REACH_HEIGHT
        return Aim(funnel(now.tip, (x, y, height)))


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
            return Aim(np.array([now.tip[0], now.tip[1], offset[2] + HOVER]), suction=True)
        goal = funnel(now.tip - offset, (pad.x, pad.y, 0.003)) + offset
        return Aim(goal, suction=True)


class PushPlan(Plan):
    """Come down behind the target, push it along the line to the pad, back off."""

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
                return Aim(funnel(now.tip, goal, hover=thing.height + 0.04))
        # Steer so that the contact stays on the line through the object's centre and the pad.
        ahead = here + forward * 0.03 - side * np.clip(1.2 * across, -0.03, 0.03)
        return Aim(np.array([ahead[0], ahead[1], low]), speed=0.62)


_PLANS: dict[str, type[Plan]] = {
    "reach": ReachPlan,
    "lift": LiftPlan,
    "place": PlacePlan,
    "push": PushPlan,
    "handover": HandoverPlan,
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
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Start a new episode; call it after the environment's reset."""
        rng = np.random.default_rng(seed)
        self._plan = _PLANS[self._env.task_name]()
        speed = _SPEED * float(rng.uniform(0.85, 1.15))
        self._movers = [_Mover(arm, speed, self._plan.opens) for arm in self._env.arms]

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """The action (A,) for the environment's current state; ``observation`` is not looked at.

        Raises:
            UserError: the environment was not reset.
        """
        env = self._env
        if env.scene is None:
            raise UserError("reset the environment before asking its expert")
        aims = self._plan.aims(env.scene, env.snapshot())
        actions = [mover(aim) for mover, aim in zip(self._movers, aims, strict=True)]
        action = np.concatenate(actions).astype(np.float32)
        return np.clip(action, env.action_space.low, env.action_space.high)


class _Mover:
    """Moves one arm's held target towards an aim with limited speed and acceleration."""

    def __init__(self, arm: Arm, speed: float, opens: bool) -> None:
        pace = _HZ / arm.robot.control_hz
        self._arm = arm
        self._top_speed = speed * pace
        self._top_turn = _TURN * pace
        self._acceleration = _ACCELERATION * pace**2
        self._turn_acceleration = _TURN_ACCELERATION * pace**2
        self._landing = 1 - 0.4**pace
        self._opens = opens
        # At 10 Hz the lean that an episode starts with is undone in one step, as in all recordings
        # so far; at a higher rate that would be a jerk.
        self._default_direction = TOOL_DOWN[:, 2] if pace < 1 else None
        self._velocity: Array = np.zeros(3)
        self._turning = 0.0

    def __call__(self, aim: Aim) -> Array:
        """The arm's part of an action."""
        arm, control = self._arm, self._arm.control
        held = control.target
        self._advance(arm.to_base(aim.tip) - held.position, self._top_speed * aim.speed)
        rotation = arm.upright
        direction = self._default_direction if aim.direction is None else aim.direction
        if direction is not None:
            rotation = self._turned(held.rotation, arm.turn.T @ direction)
        goal = Pose(held.position + self._velocity, rotation)
        q: Array = control.target_q
        if control.free_yaw:
            q = solve_ik(arm.chain, q, goal, free_yaw=True, posture=arm.home, iterations=8).q
        return np.append(control.motion_to(goal, q), self._grip(aim.suction))

    def _grip(self, hold: bool) -> float:
        if self._arm.robot.gripper == "vacuum":
            return float(hold)
        return float(self._opens and not hold)

    def _advance(self, way: Array, top_speed: float) -> None:
        """Turn the velocity towards ``way`` (3,) [m], limited in speed and acceleration."""
        distance = float(np.sqrt(way @ way))
        # v² = 2 a d brakes in time; half the way in a step of 0.1 s lands softly.
        brake = math.sqrt(2 * 0.6 * self._acceleration * distance)
        speed = min(top_speed, brake, self._landing * distance)
        change = way * (speed / max(distance, 1e-9)) - self._velocity
        size = float(np.sqrt(change @ change))
        self._velocity = self._velocity + change * min(1.0, self._acceleration / max(size, 1e-9))

    def _turned(self, rotation: Array, direction: Array) -> Array:
        """``rotation`` (3, 3) turned, within the same kinds of limits, to point along there."""
        axis: Array = np.asarray(np.cross(rotation[:, 2], direction), dtype=np.float64)
        sin, cos = float(np.sqrt(axis @ axis)), float(rotation[:, 2] @ direction)
        angle = math.atan2(sin, cos)
        brake = math.sqrt(2 * 0.6 * self._turn_acceleration * angle)
        speed = min(self._top_turn, brake, self._landing * angle)
        self._turning = min(speed, self._turning + self._turn_acceleration)
        return rotation_matrix(axis * (self._turning / max(sin, 1e-9))) @ rotation


def _retreat(now: Snapshot) -> Aim:
    """Straight up, then wait: what a demonstration shows last should be worth repeating."""
    return Aim(np.array([now.tip[0], now.tip[1], _RETREAT]))


def _grasp(scene: Scene, now: Snapshot) -> Aim:
    """Come down on the target with the cup, which goes on just before it touches, or around it."""
    x, y, z = now.positions[scene.target]
    top = z + scene.target_thing.height / 2
    aside = math.hypot(now.tip[0] - x, now.tip[1] - y)
    if now.hands and now.hands[0].jaws:
        low = top - jaw_depth(scene.target_thing)
        around = aside < 0.008 and now.tip[2] < low + 0.006
        return Aim(funnel(now.tip, (x, y, low), slope=12.0), suction=around)
    near = aside < 0.02 and now.tip[2] < top + 0.05
    return Aim(funnel(now.tip, (x, y, top - 0.001)), suction=near)
