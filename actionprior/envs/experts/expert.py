"""The expert: moves the held target towards its plan's aim, with limited speed and acceleration."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts.drawer import DrawerPlan
from actionprior.envs.experts.human import Human, check_human
from actionprior.envs.experts.long_horizon import SortPlan, StackPlan
from actionprior.envs.experts.memory import OnceEachPlan
from actionprior.envs.experts.plan import Plan
from actionprior.envs.experts.tabletop import LiftPlan, PlacePlan, PushPlan, ReachPlan
from actionprior.envs.kinematics import Array, Pose, solve_ik
from actionprior.errors import UserError

_SPEED = 0.021
"""Mean top speed of the tip [m a step of 0.1 s]; each episode's differs a little."""
_ACCELERATION = 0.010
"""Largest change of the tip's velocity [m a step of 0.1 s, a step]."""
_STEP_HZ = 10
"""The rate that the two above are told at [Hz]."""

_PLANS: dict[str, type[Plan]] = {
    "reach": ReachPlan,
    "lift": LiftPlan,
    "place": PlacePlan,
    "push": PushPlan,
    "stack": StackPlan,
    "sort": SortPlan,
    "drawer": DrawerPlan,
    "recall": PlacePlan,
    "once_each": OnceEachPlan,
}


class Expert:
    """The scripted expert of an environment.

    Args:
        env: a :class:`TabletopEnv`, wrapped or not.
        seed: draws the speed of each episode, and its flaws.
        human: 0 to 1: how much the demonstrations show the flaws of a person's (:class:`Human`);
            0 is none.

    Raises:
        UserError: the task has no expert, or ``human`` is out of range.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 0, human: float = 0.0) -> None:
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, TabletopEnv) or unwrapped.task_name not in _PLANS:
            raise UserError(f"there is no expert for {unwrapped!r}; tasks: {sorted(_PLANS)}")
        self._env = unwrapped
        self._human = check_human(human)
        # Exactly 1 at 10 Hz.
        self._scale = _STEP_HZ / unwrapped.control_hz
        self._base = np.array(unwrapped.robot.base)
        self._upright = unwrapped.chain.forward(unwrapped.home).rotation
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Start a new episode; call it after the environment's reset."""
        rng = np.random.default_rng(seed)
        self._plan = _PLANS[self._env.task_name]()
        self._speed = _SPEED * float(rng.uniform(0.85, 1.15)) * self._scale
        self._flaws = Human(rng, self._human, self._env.control_hz) if self._human else None
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
        if self._flaws is not None:
            aim = self._flaws.bend(aim, held.position + self._base)
        self._advance(aim.tip - self._base - held.position, self._speed * aim.speed)
        step = self._velocity
        if self._flaws is not None:
            step = step + self._flaws.tremor(step)
        goal = Pose(held.position + step, self._upright)
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
        limit = _ACCELERATION * self._scale**2
        speed = min(top_speed, math.sqrt(2 * 0.6 * limit * distance), 0.6 * distance)
        change = way * (speed / max(distance, 1e-9)) - self._velocity
        size = float(np.sqrt(change @ change))
        self._velocity = self._velocity + change * min(1.0, limit / max(size, 1e-9))
