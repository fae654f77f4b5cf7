"""Check that an environment fits a robot: control rate, state, action and cameras."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Space

from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import UserError
from actionprior.rollout.results import Frame

RENDER = "__render__"
"""Value in ``ObservationMap.images`` for images that ``env.render()`` returns. With ``/NAME`` after
it, for those of the unwrapped environment's ``render_camera(NAME)``."""

Order = npt.NDArray[np.intp]


class RolloutError(UserError):
    """Environment, policy and embodiment do not fit. The message names the environment."""


class RobotInterface(Protocol):
    """Properties of a robot that an environment must match. Every ``Embodiment`` has them."""

    @property
    def name(self) -> str:
        """Name of the robot in messages."""

    @property
    def control_hz(self) -> float:
        """Control rate [Hz]."""

    @property
    def state_features(self) -> list[str]:
        """Names of the n_s entries of the state vector."""

    @property
    def action_features(self) -> list[str]:
        """Names of the n_a entries of the action vector."""

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras."""


@dataclass
class ObservationMap:
    """Map from an embodiment's features to entries of an environment's observation.

    Join the keys of nested dictionaries by ``/``, such as ``pixels/top``.

    Attributes:
        state: Key of the state vector. Several keys are concatenated. Empty if the observation
            itself is the vector.
        images: Key of the (Y, X, 3) uint8 image of each camera of the embodiment. ``__render__``
            stands for what ``env.render()`` returns, and ``__render__/NAME`` for what the unwrapped
            environment's ``render_camera("NAME")`` returns.
        instruction: Key of ``info`` that holds the task in words.
        text: Fixed task in words, which replaces ``instruction``.
        state_names: Names of the state's entries, from which the embodiment's features are
            selected. By default the environment's ``state_names``. If it has none, its entries
            must be the embodiment's.
    """

    state: str | list[str] = "state"
    images: dict[str, str] = field(default_factory=dict)
    instruction: str = "instruction"
    text: str = ""
    state_names: list[str] = field(default_factory=list)

    @property
    def state_keys(self) -> list[str]:
        """Keys of ``state`` as a list."""
        return [self.state] if isinstance(self.state, str) else self.state


class Compatibility(NamedTuple):
    """Checks of an environment against a robot.

    Every method raises a ``RolloutError`` that says what does not fit.
    """

    env: gymnasium.Env[Any, Any]
    env_id: str
    robot: RobotInterface
    observation_map: ObservationMap

    def check_rate(self) -> None:
        """Check that an environment with a ``control_hz`` runs at the robot's rate."""
        rate = getattr(self.env.unwrapped, "control_hz", self.robot.control_hz)
        if rate != self.robot.control_hz:
            raise RolloutError(
                f"environment {self.env_id!r} runs at {rate} Hz, but embodiment "
                f"{self.robot.name!r} is controlled at {self.robot.control_hz} Hz"
            )

    def state_order(self) -> Order:
        """Return the indices (n_s,) of the robot's features in the environment's state."""
        if not self.robot.state_features:  # the robot has no state
            return np.arange(0)
        keys = self.observation_map.state_keys
        spaces = [find_space(self.env.observation_space, key) for key in keys]
        if not keys or None in spaces:
            missing = repr(keys[spaces.index(None)]) if keys else "empty"
            raise RolloutError(
                f"environment {self.env_id!r}: observation_map.state is {missing}, but the "
                f"observation holds {_keys(self.env.observation_space)}"
            )
        expected = self.robot.state_features
        names = self.observation_map.state_names or getattr(self.env.unwrapped, "state_names", None)
        shapes = [None if space is None else space.shape for space in spaces]
        flat = [width for width in map(state_width, spaces) if width is not None]
        if len(flat) < len(keys) or sum(flat) != len(names or expected):
            raise RolloutError(
                f"environment {self.env_id!r} has a state of shape "
                f"{shapes[0] if len(keys) == 1 else shapes}, but {self._expects(names)}"
            )
        return self._order("state", names, expected)

    def action_order(self) -> tuple[Order, Box]:
        """Return the indices (n_a,) of the robot's actions in the environment's, and the bounds."""
        space = self.env.action_space
        expected = self.robot.action_features
        if not isinstance(space, Box) or space.shape != (len(expected),):
            found = f"of shape {space.shape}" if isinstance(space, Box) else str(space)
            raise RolloutError(
                f"environment {self.env_id!r} has an action space {found}, but embodiment "
                f"{self.robot.name!r} has {len(expected)} actions: {', '.join(expected)}"
            )
        names = getattr(self.env.unwrapped, "action_names", None)
        order = self._order("action", names, expected)
        low, high = space.low[order].astype(np.float32), space.high[order].astype(np.float32)
        return order, Box(low, high, dtype=np.float32)

    def camera_shapes(self) -> list[tuple[int, ...]]:
        """Return each camera's shape (Y, X, 3). Rendered environments are reset for it."""
        return [self._image_shape(camera) for camera in self.robot.cameras]

    def image_space(self, shapes: list[tuple[int, ...]], image_shape: ImageShape | None) -> Box:
        """Return the space (C, Y, X, 3) of the images, which are brought to ``image_shape``."""
        if image_shape is None and len(set(shapes)) > 1:
            found = dict(zip(self.robot.cameras, shapes, strict=True))
            raise RolloutError(
                f"environment {self.env_id!r}: its cameras differ in size, {found}; expected one "
                "size, because it is not known at which size a policy sees them"
            )
        size = shapes[0][:2] if image_shape is None else image_shape.size
        return Box(0, 255, (len(shapes), *size, 3), np.uint8)

    def _expects(self, names: Sequence[str] | None) -> str:
        who = "its state_names are" if names else f"embodiment {self.robot.name!r} expects"
        wanted = names or self.robot.state_features
        return f"{who} {len(wanted)} entries: {', '.join(wanted)}"

    def _image_shape(self, camera: str) -> tuple[int, ...]:
        images = self.observation_map.images
        if camera not in images:
            raise RolloutError(
                f"environment {self.env_id!r}: camera {camera!r} of embodiment "
                f"{self.robot.name!r} is missing in observation_map.images, which maps "
                f"{sorted(images)}"
            )
        if is_rendered(images[camera]):
            self.env.reset(seed=0)
            return render(self.env, self.env_id, images[camera]).shape
        space = find_space(self.env.observation_space, images[camera])
        if not isinstance(space, Box) or not _is_image(np.empty(space.shape, space.dtype)):
            raise RolloutError(
                f"environment {self.env_id!r}: camera {camera!r} is mapped to "
                f"{images[camera]!r}, which is {'missing' if space is None else space}; expected "
                f"a (Y, X, 3) uint8 image, found {_keys(self.env.observation_space)}"
            )
        return space.shape

    def _order(self, kind: str, names: Sequence[str] | None, expected: list[str]) -> Order:
        if names is None:
            return np.arange(len(expected))
        if missing := [name for name in expected if name not in names]:
            raise RolloutError(
                f"environment {self.env_id!r} has no {kind} {missing[0]!r}, which embodiment "
                f"{self.robot.name!r} expects; it has {', '.join(names)}"
            )
        return np.array([list(names).index(name) for name in expected], dtype=np.intp)


def find_entry(observation: Any, key: str) -> Any:  # noqa: ANN401  an environment's own types
    """Return the entry of a nested observation at ``a/b``, or all of it for the empty key.

    A key that itself has a slash is found first.

    Raises:
        KeyError: There is no such entry.
    """
    if not key:
        return observation
    for head, rest in _ways(key):
        if isinstance(observation, Mapping) and head in observation:
            return find_entry(observation[head], rest)
    raise KeyError(key)


def find_space(space: Space[Any], key: str) -> Space[Any] | None:
    """Return the space of the entry at ``a/b``, or None if it is missing or a dictionary."""
    if not key:
        return None if isinstance(space, Dict) else space
    for head, rest in _ways(key):
        if isinstance(space, Dict) and head in space.spaces:
            return find_space(space.spaces[head], rest)
    return None


def _ways(key: str) -> list[tuple[str, str]]:
    """List the ways to split a key into an entry's name and the rest, the longest name first."""
    parts = key.split("/")
    return [("/".join(parts[:n]), "/".join(parts[n:])) for n in range(len(parts), 0, -1)]


def state_width(space: Space[Any] | None) -> int | None:
    """Return the number of entries of a part of the state; None if it is no vector or number."""
    if isinstance(space, Discrete):
        return 1
    if not isinstance(space, Box | MultiBinary) or len(space.shape) > 1:
        return None
    return math.prod(space.shape)


def is_rendered(key: str) -> bool:
    """Check whether a value of ``ObservationMap.images`` asks to render the environment."""
    return key.partition("/")[0] == RENDER


def render(env: gymnasium.Env[Any, Any], env_id: str, key: str = RENDER) -> Frame:
    """Render an environment and copy the (Y, X, 3) image.

    Args:
        env: Environment to render.
        env_id: Name of the environment in messages.
        key: ``__render__``, or ``__render__/NAME`` for one of several cameras.

    Raises:
        RolloutError: The environment has no named cameras, or renders anything else.
    """
    camera = key.partition("/")[2]
    bare: Any = env.unwrapped
    if camera and not hasattr(bare, "render_camera"):
        raise RolloutError(
            f"environment {env_id!r} has no render_camera(), which observation_map.images asks "
            f"for with {key!r}; use {RENDER!r}"
        )
    frame: object = bare.render_camera(camera) if camera else env.render()
    if not _is_image(frame):
        found = f"{frame.shape} {frame.dtype}" if isinstance(frame, np.ndarray) else type(frame)
        raise RolloutError(
            f"environment {env_id!r}: render() returned {found}, expected a (Y, X, 3) uint8 image; "
            "make it with render_mode='rgb_array' or film no episode"
        )
    return np.array(frame)


def missing_success(env_id: str) -> RolloutError:
    """Return the error about an environment whose info does not report success."""
    return RolloutError(
        f"environment {env_id!r} does not report success: its info at the end of an episode has "
        "neither 'is_success' nor 'success' (nor the given key); pass success_key"
    )


def _keys(space: Space[Any]) -> str:
    return f"keys {list(space.spaces)}" if isinstance(space, Dict) else f"no keys, {space}"


def _is_image(value: object) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[-1] == 3
    )
