"""Wrap any Gymnasium environment for one robot: typed observations, actions in its order."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Space

from actionprior.embodiment import FloatArray
from actionprior.embodiment.image_shape import ImageShape
from actionprior.rollout.compatibility import (
    RENDER,
    Compatibility,
    ObservationMap,
    RobotInterface,
    RolloutError,
    find_entry,
    find_space,
    is_rendered,
    render,
)
from actionprior.rollout.info import read_instruction, read_success
from actionprior.rollout.results import Frame

OWN_ENVIRONMENTS = ("actionprior.envs", "actionprior.benchmarks")
"""Modules of this project that register environments."""

ENDLESS = 3_000
"""Steps after which an episode without a time limit is taken for endless."""

RobotObservation = dict[str, npt.NDArray[Any]]


class RobotEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Wrapper with observations ``{"state": (n_s,), "images": (C, Y, X, 3)}``, typed and checked.

    State and actions are in the order of the embodiment's features. They are matched by name if
    the unwrapped environment has ``state_names`` or ``action_names``, or the observation map has
    ``state_names``. Any other environment must use the embodiment's order. A robot without cameras
    has no ``images``.

    ``info`` holds ``instruction``, ``success`` (if the environment reports it) and, in filmed
    episodes, ``frame``. ``reset(seed=None)`` parks the environment: until the next reset with a
    seed, steps cost nothing and return the last observation.

    Args:
        env: Environment to wrap.
        env_id: Name of the environment in messages.
        embodiment: Robot of the environment.
        observation_map: Map from the robot's features to the environment's observation.
        success_key: Key of ``info`` that reports success. None selects ``is_success``, or else
            ``success``.
        filmed: Seeds of the episodes to film.
        look_every: Steps between two plans of the policy, which needs no images in between.
            ``render()`` is called after a reset and then at this interval. In between, the last
            image is repeated. If the unwrapped environment has an attribute ``look_every``, it is
            set to this value.
        image_shape: Size to which the cameras' images are brought. By default they stay as they
            are, and must then have one size.
        own_sizes: Give each camera an entry of its own, see :func:`camera_entry`, in place of
            ``images``. The cameras may then differ in size.

    Raises:
        RolloutError: The spaces, the control rate or the cameras do not fit the embodiment.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        env_id: str,
        embodiment: RobotInterface,
        observation_map: ObservationMap,
        success_key: str | None = None,
        filmed: frozenset[int] = frozenset(),
        look_every: int = 1,
        image_shape: ImageShape | None = None,
        own_sizes: bool = False,
    ) -> None:
        super().__init__(env)
        self._id = env_id
        self._robot = embodiment
        self._map = observation_map
        self._success_keys = [success_key] if success_key else ["is_success", "success"]
        self._filmed = filmed
        self._filming = False
        self._parked = False
        self._look_every, self._steps = look_every, 0
        self._image_shape, self._own_sizes = image_shape, own_sizes
        if hasattr(env.unwrapped, "look_every"):
            env.unwrapped.look_every = look_every
        self._instruction = ""
        self._endless = env.spec is None or env.spec.max_episode_steps is None
        checks = Compatibility(env, env_id, embodiment, observation_map)
        checks.check_rate()
        self._state_order = checks.state_order()
        self._action_order, self.action_space = checks.action_order()
        spaces: dict[str, Space[Any]] = {
            "state": Box(-np.inf, np.inf, (len(embodiment.state_features),), np.float32)
        }
        if embodiment.cameras:
            self._camera_shapes = shapes = checks.camera_shapes()
            if own_sizes:
                for camera, shape in zip(embodiment.cameras, shapes, strict=True):
                    size = shape[:2] if image_shape is None else image_shape.size
                    spaces[camera_entry(camera)] = Box(0, 255, (*size, 3), np.uint8)
            else:
                spaces["images"] = checks.image_space(shapes, image_shape)
        self._spaces, self.observation_space = spaces, Dict(spaces)
        self._last = {key: np.zeros(s.shape or (), s.dtype) for key, s in spaces.items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[RobotObservation, dict[str, Any]]:
        """Start the episode of a seed, or park the environment (``seed=None``)."""
        self._parked = seed is None
        if seed is None:
            return self._last, {}
        observation, info = self.env.reset(seed=seed, options=options or None)
        self._filming = seed in self._filmed
        self._instruction = self._map.text
        self._steps = 0
        self._last = self._observe(observation)
        for key, space in self._spaces.items():
            if self._last[key].shape != space.shape:
                raise RolloutError(
                    f"environment {self._id!r} returns {key} of shape {self._last[key].shape}, but "
                    f"its observation space says {space.shape}"
                )
        return self._last, self._robot_info(info)

    def step(
        self, action: FloatArray
    ) -> tuple[RobotObservation, float, bool, bool, dict[str, Any]]:
        """Execute an action (n_a,) in the embodiment's order."""
        if self._parked:
            return self._last, 0.0, False, False, {}
        space = self.env.action_space
        assert isinstance(space, Box)
        vector = np.empty(space.shape, space.dtype)
        vector[self._action_order] = action
        # Clip again: bounds in float64 may be tighter than their float32 roundings.
        vector = np.clip(vector, space.low, space.high)
        observation, reward, terminated, truncated, info = self.env.step(vector)
        self._steps += 1
        if self._endless and self._steps >= ENDLESS:
            raise RolloutError(
                f"environment {self._id!r} has no time limit, and its episode has not ended after "
                f"{ENDLESS} steps; set max_steps"
            )
        self._last = self._observe(observation)
        return self._last, float(reward), bool(terminated), bool(truncated), self._robot_info(info)

    def draw(self) -> list[Frame]:
        """Render the image (Y, X, 3) of each camera that ``observation_map`` renders, now."""
        keys = [self._map.images[camera] for camera in self._robot.cameras]
        return [render(self.env, self._id, key) for key in keys if is_rendered(key)]

    def _observe(self, observation: object) -> RobotObservation:
        keys = self._map.state_keys if self._robot.state_features else []
        parts: list[FloatArray] = [np.zeros(0, np.float32)]
        parts += [self._state_part(observation, key) for key in keys]
        state = np.concatenate(parts)[self._state_order]
        if not np.isfinite(state).all():
            names = self._robot.state_features
            bad = [name for name, value in zip(names, state, strict=True) if not np.isfinite(value)]
            raise RolloutError(
                f"environment {self._id!r} returns NaN or infinite states after step {self._steps}:"
                f" {', '.join(bad[:8])}"
            )
        typed: RobotObservation = {"state": state}
        cameras = self._robot.cameras
        images = [self._fitted_image(i, observation) for i in range(len(cameras))]
        if self._own_sizes:
            typed |= {camera_entry(name): img for name, img in zip(cameras, images, strict=True)}
        elif images:
            typed["images"] = np.stack(images)
        return typed

    def _state_part(self, observation: object, key: str) -> FloatArray:
        """Return one part of the state as a vector."""
        found = np.asarray(self._entry(observation, key))
        space = find_space(self.env.observation_space, key)
        declared = None if space is None else space.shape
        if found.dtype.kind not in "biuf" or found.shape != declared:
            raise RolloutError(
                f"environment {self._id!r} returns {found.dtype} of shape {found.shape} as state "
                f"{key!r}, but its observation space says {space}"
            )
        with np.errstate(over="ignore"):  # reported as infinite
            vector: FloatArray = found.reshape(-1).astype(np.float32)
        return vector

    def _entry(self, observation: object, key: str) -> Any:  # noqa: ANN401  an environment's own types
        try:
            return find_entry(observation, key)
        except KeyError:
            held = list(observation) if isinstance(observation, Mapping) else type(observation)
            raise RolloutError(
                f"environment {self._id!r} returns an observation without {key!r}, which its "
                f"observation space has; it holds {held}"
            ) from None

    def _fitted_image(self, camera: int, observation: object) -> Frame:
        if is_rendered(self._image_key(camera)) and self._steps % self._look_every:
            name = camera_entry(self._robot.cameras[camera])
            last: Frame = self._last[name] if self._own_sizes else self._last["images"][camera]
            return last
        image = self._camera_image(camera, observation)
        return image if self._image_shape is None else self._image_shape.apply_to_array(image)

    def _image_key(self, camera: int) -> str:
        return self._map.images[self._robot.cameras[camera]]

    def _camera_image(self, camera: int, observation: object) -> Frame:
        key = self._image_key(camera)
        if is_rendered(key):
            return render(self.env, self._id, key)
        image = np.asarray(self._entry(observation, key))
        declared = self._camera_shapes[camera]
        if image.dtype != np.uint8 or image.shape != declared:
            raise RolloutError(
                f"environment {self._id!r} returns {image.dtype} of shape {image.shape} as "
                f"image {key!r}, but its observation space says uint8 of shape {declared}"
            )
        return image

    def _robot_info(self, info: dict[str, Any]) -> dict[str, Any]:
        key = self._map.instruction
        if not self._map.text and key in info:
            self._instruction = read_instruction(info[key], self._id, key)
        if not self._instruction:
            raise RolloutError(
                f"environment {self._id!r} gives no instruction: info has keys {sorted(info)}, "
                f"expected {self._map.instruction!r}; or set observation_map.text to a fixed one"
            )
        robot_info: dict[str, Any] = {"instruction": self._instruction}
        for key in self._success_keys:
            if key in info:
                robot_info["success"] = read_success(info[key], self._id, key)
                break
        if self._filming:
            robot_info["frame"] = render(self.env, self._id)
        return robot_info


def camera_entry(camera: str) -> str:
    """Return the key of a camera in the observation of a ``RobotEnv`` with ``own_sizes``."""
    return f"images/{camera}"


def register_environments(modules: Iterable[str]) -> None:
    """Import the modules that register environments.

    Raises:
        RolloutError: A module is not found.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise RolloutError(f"import_modules names {name!r}: {error}") from error


def find_spec(env_id: str) -> EnvSpec:
    """Return the specification of a registered environment.

    Raises:
        RolloutError: The environment is not registered.
    """
    try:
        return gymnasium.spec(env_id)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise RolloutError(
            f"environment {env_id!r} cannot be found ({error}); import the module that registers "
            "it (import_modules) or check the id"
        ) from error


def make_env(
    spec: EnvSpec,
    observation_map: ObservationMap,
    max_steps: int | None,
    env_kwargs: dict[str, Any],
    filmed: bool = False,
) -> gymnasium.Env[Any, Any]:
    """Make an environment. Enable rendering if a film or an image of the map needs it.

    Raises:
        RolloutError: The environment cannot render.
    """
    kwargs = dict(env_kwargs)
    renders = filmed or any(map(is_rendered, observation_map.images.values()))
    if renders:
        kwargs.setdefault("render_mode", "rgb_array")
    # Gymnasium's passive checker costs time at each step, and RobotEnv checks the same.
    env = gymnasium.make(spec, max_episode_steps=max_steps, disable_env_checker=True, **kwargs)
    if renders and env.render_mode != "rgb_array":
        env.close()
        raise RolloutError(
            f"environment {spec.id!r} has render_mode {env.render_mode!r}, but filming and "
            f"{RENDER!r} images need 'rgb_array'"
        )
    return env


def make_robot_env(
    spec: EnvSpec,
    embodiment: RobotInterface,
    observation_map: ObservationMap,
    success_key: str | None,
    filmed: frozenset[int],
    max_steps: int | None,
    env_kwargs: dict[str, Any],
    look_every: int,
    image_shape: ImageShape | None,
) -> RobotEnv:
    """Make one environment of a vector environment.

    Raises:
        RolloutError: The environment does not fit, see ``RobotEnv`` and ``make_env``.
    """
    env = make_env(spec, observation_map, max_steps, env_kwargs, bool(filmed))
    try:
        return RobotEnv(
            env, spec.id, embodiment, observation_map, success_key, filmed, look_every, image_shape
        )
    except RolloutError:
        env.close()
        raise
