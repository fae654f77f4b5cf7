"""A scripted expert in any Gymnasium environment, as a task to record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from actionprior.embodiment import FloatArray
from actionprior.errors import UserError
from actionprior.recording.lerobot_writer import DatasetFeatures, Demonstration, RecordedFrame
from actionprior.rollout import ObservationMap, RolloutError
from actionprior.rollout.compatibility import find_space
from actionprior.rollout.robot_env import RobotEnv, RobotObservation

Environment = gymnasium.Env[Any, Any]


class RecordedRobot(NamedTuple):
    """What is recorded of an environment: a ``RobotInterface``."""

    name: str
    control_hz: float
    state_features: list[str]
    action_features: list[str]
    cameras: list[str]


def whole_body(
    env: Environment,
    env_id: str,
    observation_map: ObservationMap,
    robot: str = "",
    control_hz: float | None = None,
    action_names: list[str] | None = None,
) -> RecordedRobot:
    """All that an environment's vectors hold, under its own names where it has any.

    Args:
        env: the environment.
        env_id: its name, for messages.
        observation_map: where state and cameras are.
        robot: in place of the environment's ``robot_name``.
        control_hz: in place of its ``control_hz``, or else its ``render_fps``: by Gymnasium's
            convention a film of it runs at the rate of its steps.
        action_names: in place of its ``action_names``; without any, ``action_0`` and so on.

    Raises:
        UserError: its rate is unknown or no whole number, or its action is no vector.
    """
    bare = env.unwrapped
    rate = control_hz or getattr(bare, "control_hz", bare.metadata.get("render_fps"))
    if not rate or round(rate) != rate:
        raise UserError(
            f"environment {env_id!r} runs at {rate} Hz; give control_hz, a whole number"
        )
    actions = env.action_space
    if not isinstance(actions, Box) or len(actions.shape) != 1:
        raise UserError(
            f"environment {env_id!r} has the action space {actions}; expected a Box of one axis"
        )
    spaces = [find_space(env.observation_space, key) for key in observation_map.state_keys]
    entries = sum(s.shape[0] for s in spaces if isinstance(s, Box) and len(s.shape) == 1)
    named = observation_map.state_names or getattr(bare, "state_names", None)
    return RecordedRobot(
        robot or getattr(bare, "robot_name", ""),
        rate,
        list(named or _numbered("state", entries)),
        list(
            action_names
            or getattr(bare, "action_names", None)
            or _numbered("action", actions.shape[0])
        ),
        list(observation_map.images),
    )


class ScriptedTask:
    """An expert's episodes in an environment.

    Args:
        env: the environment, made for this; ``close`` closes it.
        env_id: its name, for messages.
        make_expert: called with the environment, gives an expert. Called with the environment's
            own observation, that answers an action; its ``reset(seed)``, if it has one, is called
            after each of the environment's.
        body: what is recorded.
        observation_map: where it is found.
        success_key: key of ``info``; None: ``is_success``, else ``success``.
        settle_steps: steps recorded after the first success, where the environment goes on.
        noise: standard deviation of white noise on the executed action, in units of half its
            range. Recorded is the action that the expert chose, as in DART (arXiv 1703.09327), so
            that demonstrations show the way back.

    Raises:
        UserError: environment, body and map do not fit, or there is no expert.
    """

    def __init__(
        self,
        env: Environment,
        env_id: str,
        make_expert: Callable[[Environment], Any],
        body: RecordedRobot,
        observation_map: ObservationMap,
        success_key: str | None = None,
        settle_steps: int = 0,
        noise: float = 0.0,
    ) -> None:
        self._id, self._body, self._settle = env_id, body, settle_steps
        self._seen = _LastSeen(env)
        self._env = RobotEnv(self._seen, env_id, body, observation_map, success_key)
        self._noise = noise * _half_range(self._env, env_id) if noise else None
        self._expert = make_expert(env)
        if not callable(self._expert):
            raise UserError(
                f"the expert of {env_id!r} is {self._expert!r}, expected something to call with "
                "an observation"
            )

    @property
    def features(self) -> DatasetFeatures:
        """What each frame holds."""
        body, space = self._body, self._env.observation_space
        assert isinstance(space, gymnasium.spaces.Dict)
        shape = (space["images"].shape or ())[1:] if body.cameras else ()
        return DatasetFeatures(
            body.name,
            round(body.control_hz),
            body.state_features,
            body.action_features,
            dict.fromkeys(body.cameras, shape),
        )

    def demonstrate(self, seed: int) -> Demonstration | None:
        """The expert's episode from a reset seed, or None where it fails.

        Raises:
            UserError: the expert's answer does not fit, or the environment tells no success.
        """
        observation, info = self._env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        if hasattr(self._expert, "reset"):
            self._expert.reset(seed)
        frames: list[RecordedFrame] = []
        left: int | None = None
        over = False
        while not over:
            action = self._ask(len(frames), seed)
            frames.append(self._frame(observation, action))
            if self._noise is not None:
                drawn = rng.standard_normal(len(action)).astype(np.float32)
                action = action + self._noise * drawn
            observation, _, terminated, truncated, info = self._env.step(action)
            if left is not None:
                left -= 1
            elif info.get("success"):
                left = self._settle
            over = terminated or truncated or left == 0
        if "success" not in info:
            raise RolloutError(
                f"environment {self._id!r} does not tell success: its info at the end of an "
                "episode has neither 'is_success' nor 'success' (nor the given key); pass "
                "success_key"
            )
        return None if left is None else Demonstration(info["instruction"], frames)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _ask(self, step: int, seed: int) -> FloatArray:
        """The expert's action (n_a,), inside of the bounds."""
        space = self._env.action_space
        assert isinstance(space, Box)
        action = np.asarray(self._expert(self._seen.observation), dtype=np.float32)
        if action.shape != space.shape or not np.isfinite(action).all():
            raise UserError(
                f"the expert of {self._id!r} answered {action.tolist()} at step {step} of the "
                f"episode with seed {seed}, expected {space.shape[0]} finite numbers"
            )
        return np.clip(action, space.low, space.high)

    def _frame(self, observation: RobotObservation, action: FloatArray) -> RecordedFrame:
        images = dict(zip(self._body.cameras, observation.get("images", ()), strict=True))
        return RecordedFrame(observation["state"], images, action)


class _LastSeen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the environment's own observation, which the expert is shown."""

    observation: object = None

    def reset(self, **kwargs: Any) -> Any:  # noqa: ANN401  an environment's own
        self.observation, info = self.env.reset(**kwargs)
        return self.observation, info

    def step(self, action: Any) -> Any:  # noqa: ANN401  an environment's own
        self.observation, *told = self.env.step(action)
        return self.observation, *told


def _numbered(kind: str, count: int) -> list[str]:
    return [f"{kind}_{i}" for i in range(count)]


def _half_range(env: RobotEnv, env_id: str) -> FloatArray:
    space = env.action_space
    assert isinstance(space, Box)
    half: FloatArray = ((space.high - space.low) / 2).astype(np.float32)
    if not np.isfinite(half).all():
        raise UserError(
            f"environment {env_id!r} has unbounded actions, {space}; noise is in units of half "
            "their range: leave it 0"
        )
    return half
