"""Scripted expert: get an aim per arm from the plan, and move each arm towards its aim."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts.drawer import DrawerPlan
from actionprior.envs.experts.handover import HandoverPlan
from actionprior.envs.experts.human import HumanFlaws, check_human
from actionprior.envs.experts.long_horizon import SortPlan, StackPlan
from actionprior.envs.experts.memory import OnceEachPlan
from actionprior.envs.experts.mover import Mover
from actionprior.envs.experts.plan import Plan
from actionprior.envs.experts.tabletop import LiftPlan, PlacePlan, PushPlan, ReachPlan
from actionprior.errors import UserError

_SPEED = 0.021
"""Mean top speed of the tip [m per step of 0.1 s]. Each episode draws a speed around it."""

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
    "handover": HandoverPlan,
}


class TabletopExpert:
    """The scripted expert of an environment.

    Args:
        env: A :class:`TabletopEnv`, wrapped or not.
        seed: Seed of the speed and the flaws of the first episode.
        human: Strength of human-like flaws (:class:`HumanFlaws`), 0 (none) to 1.

    Raises:
        UserError: The task has no expert, or ``human`` is out of range.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 0, human: float = 0.0) -> None:
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, TabletopEnv) or unwrapped.task_name not in _PLANS:
            raise UserError(
                f"there is no expert for {unwrapped!r}; tasks with one are {sorted(_PLANS)}"
            )
        self._env = unwrapped
        self._human = check_human(human)
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Start a new episode. Call this after resetting the environment."""
        rng = np.random.default_rng(seed)
        env = self._env
        self._plan = _PLANS[env.task_name]()
        speed = _SPEED * float(rng.uniform(0.85, 1.15))
        self._movers = [
            Mover(
                arm,
                speed,
                self._plan.opens,
                HumanFlaws(rng, self._human, env.control_hz) if self._human else None,
            )
            for arm in env.arms
        ]

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """Compute the action (A,) for the environment's current state. ``observation`` is ignored.

        Raises:
            UserError: The environment was not reset.
        """
        env = self._env
        if env.scene is None:
            raise UserError("reset the environment before calling its expert")
        aims = self._plan.aims(env.scene, env.snapshot())
        actions = [mover(aim) for mover, aim in zip(self._movers, aims, strict=True)]
        action = np.concatenate(actions).astype(np.float32)
        return np.clip(action, env.action_space.low, env.action_space.high)
