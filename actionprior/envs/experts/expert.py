"""Scripted expert: get an aim per arm from the plan, and move each arm towards its aim."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs.arms.kinematics import Array
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
from actionprior.recording.pushes import Pushes

_SPEED = 0.021
"""Mean top speed of the tip [m per step of 0.1 s]. Each episode draws a speed around it."""

MAX_PUSH = 0.2
"""Largest speed of pushes [m/s], about that of the experts."""
_PUSH_SECONDS, _PUSH_EVERY_SECONDS = 1.0, 4.0
"""Duration of a push, and mean time from one to the next [s]."""

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


def check_push(push: float) -> float:
    """Check the speed of pushes, and return it.

    Raises:
        UserError: ``push`` is not between 0 and ``MAX_PUSH``.
    """
    if not 0.0 <= push <= MAX_PUSH:
        raise UserError(f"push is {push}; it must be 0 (no pushes) to {MAX_PUSH} m/s")
    return push


class TabletopExpert:
    """The scripted expert of an environment.

    Args:
        env: A :class:`TabletopEnv`, wrapped or not.
        seed: Seed of the speed and the flaws of the first episode.
        human: Strength of human-like flaws (:class:`HumanFlaws`), 0 (none) to 1.
        push: Largest speed of random pushes of each tip, along each axis [m/s]. A push lasts a
            second, and there is one in four seconds on average. They never lead downwards.

    Attributes:
        executed: The last action with the push of its step, or the action itself.

    Raises:
        UserError: The task has no expert, or ``human`` or ``push`` is out of range.
    """

    executed: NDArray[np.float32]

    def __init__(
        self, env: gym.Env[Any, Any], seed: int = 0, human: float = 0.0, push: float = 0.0
    ) -> None:
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, TabletopEnv) or unwrapped.task_name not in _PLANS:
            raise UserError(
                f"there is no expert for {unwrapped!r}; tasks with one are {sorted(_PLANS)}"
            )
        self._env = unwrapped
        self._human, self._push = check_human(human), check_push(push)
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
                self._pushes(seed + number),
            )
            for number, arm in enumerate(env.arms)
        ]

    def _pushes(self, seed: int) -> Pushes | None:
        if not self._push:
            return None
        hz = self._env.control_hz
        size = np.full(3, self._push / hz, np.float32)
        return Pushes(size, seed, round(_PUSH_SECONDS * hz), round(_PUSH_EVERY_SECONDS * hz))

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """Compute the action (A,) for the environment's current state. ``observation`` is ignored.

        Raises:
            UserError: The environment was not reset.
        """
        env = self._env
        if env.scene is None:
            raise UserError("reset the environment before calling its expert")
        aims = self._plan.aims(env.scene, env.snapshot())
        chosen = [mover(aim) for mover, aim in zip(self._movers, aims, strict=True)]
        self.executed = self._within_bounds([mover.executed for mover in self._movers])
        return self._within_bounds(chosen)

    def _within_bounds(self, parts: list[Array]) -> NDArray[np.float32]:
        """Return the action (A,) of all arms, clipped to the environment's bounds."""
        space = self._env.action_space
        return np.clip(np.concatenate(parts).astype(np.float32), space.low, space.high)
