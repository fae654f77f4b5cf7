"""Record a scripted expert in any Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from actionprior.embodiment import FloatArray
from actionprior.errors import UserError
from actionprior.recording.lerobot_writer import DatasetFeatures, Demonstration, RecordedFrame
from actionprior.recording.pushes import Pushes
from actionprior.rollout import ObservationMap
from actionprior.rollout.compatibility import (
    find_space,
    is_rendered,
    missing_success,
    state_width,
)
from actionprior.rollout.robot_env import RobotEnv, RobotObservation, camera_entry

Environment = gymnasium.Env[Any, Any]
_NEVER = 10**9
"""Interval between two images that no episode reaches."""


@runtime_checkable
class RedrawsScenes(Protocol):
    """Environment that can draw steps of an episode afterwards.

    If all images are rendered (``__render__``), the recorder then draws only episodes that succeed.
    """

    def save_scene(self) -> Any:  # noqa: ANN401  an environment's own
        """Return where everything is now."""

    def show_scene(self, scene: Any) -> None:  # noqa: ANN401  an environment's own
        """Draw a saved scene from now on, until the next step or reset."""

    def free_renderer(self) -> None:
        """Free what drawing needs, since other tasks draw next. The next image costs more."""


class RecordedRobot(NamedTuple):
    """Robot whose features are recorded; it implements ``RobotInterface``."""

    name: str
    control_hz: float
    state_features: list[str]
    action_features: list[str]
    cameras: list[str]


def environment_robot(
    env: Environment,
    env_id: str,
    observation_map: ObservationMap,
    robot: str = "",
    control_hz: float | None = None,
    action_names: list[str] | None = None,
) -> RecordedRobot:
    """Describe all entries of an environment's state and action vectors as a robot.

    Args:
        env: Environment to describe.
        env_id: Name of the environment in messages.
        observation_map: Map to the state and the images in the environment's observation.
        robot: Name that replaces the environment's ``robot_name``.
        control_hz: Rate that replaces the environment's ``control_hz``, or else its
            ``render_fps``, which by Gymnasium's convention is the rate of its steps.
        action_names: Names that replace the environment's ``action_names``. Without any, actions
            are named ``action_0``, ``action_1``, …

    Raises:
        UserError: The rate is unknown or not a whole number, or the action is not a vector.
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
    if None in spaces:
        missing = observation_map.state_keys[spaces.index(None)]
        raise UserError(
            f"environment {env_id!r}: observation_map.state is {missing!r}, which is not in its "
            f"observation: {env.observation_space}"
        )
    entries = sum(state_width(space) or 0 for space in spaces)
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
    """Episodes of a scripted expert in an environment.

    Args:
        env: Environment to record; ``close`` closes it.
        env_id: Name of the environment in messages.
        make_expert: Function from the environment to an expert. The expert is called with the
            environment's own observation and returns an action. If it has a ``reset(seed)``, that
            is called after each reset of the environment.
        robot: Robot whose features are recorded.
        observation_map: Map from the robot's features to the environment's observation.
        success_key: Key of ``info`` that reports success. None selects ``is_success``, or else
            ``success``.
        settle_steps: Steps to record after the first success, if the environment continues.
        noise: Standard deviation of white noise on the executed action, in units of half its
            range. The recording holds the action that the expert chose, as in DART (arXiv
            1703.09327), so that demonstrations show how to recover.
        push: Size of pushes by the name of an action's element, in units of half its range. Every
            ``PUSH_EVERY`` steps on average, a random push of at most this size is added to the
            executed action for ``PUSH_STEPS`` steps. The recording holds what the expert chose.
            An expert undoes white noise at once, so that only pushes lead away from its path.

    Raises:
        UserError: The environment does not fit the robot, the expert is not callable, or ``push``
            names an element that the action does not have.
    """

    def __init__(
        self,
        env: Environment,
        env_id: str,
        make_expert: Callable[[Environment], Any],
        robot: RecordedRobot,
        observation_map: ObservationMap,
        success_key: str | None = None,
        settle_steps: int = 0,
        noise: float = 0.0,
        push: Mapping[str, float] | None = None,
    ) -> None:
        self._id, self._robot, self._settle = env_id, robot, settle_steps
        self._raw_env = _LastObservation(env)
        keys = [observation_map.images.get(camera, "") for camera in robot.cameras]
        bare: object = env.unwrapped
        self._redrawn: RedrawsScenes | None = None
        if keys and all(map(is_rendered, keys)) and isinstance(bare, RedrawsScenes):
            self._redrawn = bare
        self._env = RobotEnv(
            self._raw_env,
            env_id,
            robot,
            observation_map,
            success_key,
            look_every=_NEVER if self._redrawn else 1,
            own_sizes=True,
        )
        self._noise = noise * _half_range(self._env, env_id) if noise else None
        self._push = self._push_sizes(push) * _half_range(self._env, env_id) if push else None
        self._expert = make_expert(env)
        if not callable(self._expert):
            raise UserError(
                f"the expert of {env_id!r} is {self._expert!r}, expected something to call with "
                "an observation"
            )
        self._free_renderer()  # the checks of the cameras have drawn

    @property
    def features(self) -> DatasetFeatures:
        """Features of the recorded frames."""
        robot, space = self._robot, self._env.observation_space
        assert isinstance(space, gymnasium.spaces.Dict)
        sizes = {camera: space[camera_entry(camera)].shape or () for camera in robot.cameras}
        return DatasetFeatures(
            robot.name,
            round(robot.control_hz),
            robot.state_features,
            robot.action_features,
            sizes,
        )

    def demonstrate(self, seed: int) -> Demonstration | None:
        """Run the expert's episode of a reset seed. Return None if the expert fails.

        Raises:
            UserError: The expert's action does not fit, or the environment does not report
                success.
        """
        observation, info = self._env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        pushes = Pushes(self._push, seed)
        if hasattr(self._expert, "reset"):
            self._expert.reset(seed)
        frames: list[RecordedFrame] = []
        scenes: list[Any] = []
        left: int | None = None
        over = False
        while not over:
            action = self._expert_action(len(frames), seed)
            frames.append(self._frame(observation, action))
            if self._redrawn is not None:
                scenes.append(self._redrawn.save_scene())
            if self._noise is not None:
                drawn = rng.standard_normal(len(action)).astype(np.float32)
                action = action + self._noise * drawn
            if (push := pushes.next()) is not None:
                action = action + push
            observation, _, terminated, truncated, info = self._env.step(action)
            if left is not None:
                left -= 1
            elif info.get("success"):
                left = self._settle
            over = terminated or truncated or left == 0
        if "success" not in info:
            raise missing_success(self._id)
        complete = None if left is None else self._with_images(frames, scenes)
        self._free_renderer()
        return None if complete is None else Demonstration(info["instruction"], complete)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _push_sizes(self, push: Mapping[str, float]) -> FloatArray:
        names = self._robot.action_features
        if unknown := [name for name in push if name not in names]:
            raise UserError(
                f"push names {unknown[0]!r}, but the action of {self._id!r} has {list(names)}"
            )
        return np.array([push.get(name, 0.0) for name in names], np.float32)

    def _expert_action(self, step: int, seed: int) -> FloatArray:
        """Return the expert's action (n_a,), clipped to the bounds."""
        space = self._env.action_space
        assert isinstance(space, Box)
        action = np.asarray(self._expert(self._raw_env.observation), dtype=np.float32)
        if action.shape != space.shape or not np.isfinite(action).all():
            raise UserError(
                f"the expert of {self._id!r} returned {action.tolist()} at step {step} of the "
                f"episode with seed {seed}, expected {space.shape[0]} finite numbers"
            )
        return np.clip(action, space.low, space.high)

    def _frame(self, observation: RobotObservation, action: FloatArray) -> RecordedFrame:
        images = {camera: observation[camera_entry(camera)] for camera in self._robot.cameras}
        return RecordedFrame(observation["state"], images, action)

    def _with_images(self, frames: list[RecordedFrame], scenes: list[Any]) -> list[RecordedFrame]:
        """Draw the saved scenes of an episode that succeeded."""
        if self._redrawn is None:
            return frames
        drawn: list[RecordedFrame] = []
        for frame, scene in zip(frames, scenes, strict=True):
            self._redrawn.show_scene(scene)
            images = dict(zip(self._robot.cameras, self._env.draw(), strict=True))
            drawn.append(frame._replace(images=images))
        return drawn

    def _free_renderer(self) -> None:
        if self._redrawn is not None:
            self._redrawn.free_renderer()


class _LastObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Wrapper that keeps the environment's own observation for the expert."""

    observation: object = None

    def reset(self, **kwargs: Any) -> Any:  # noqa: ANN401  an environment's own
        self.observation, info = self.env.reset(**kwargs)
        return self.observation, info

    def step(self, action: Any) -> Any:  # noqa: ANN401  an environment's own
        self.observation, *rest = self.env.step(action)
        return self.observation, *rest


def _numbered(kind: str, count: int) -> list[str]:
    return [f"{kind}_{i}" for i in range(count)]


def _half_range(env: RobotEnv, env_id: str) -> FloatArray:
    space = env.action_space
    assert isinstance(space, Box)
    half: FloatArray = ((space.high - space.low) / 2).astype(np.float32)
    if not np.isfinite(half).all():
        raise UserError(
            f"environment {env_id!r} has unbounded actions, {space}; noise is in units of half "
            "their range, so set it to 0"
        )
    return half
