"""Whether an environment fits a robot: rate, state, action and cameras, told in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space

from actionprior.errors import UserError
from actionprior.rollout.results import Frame

RENDER = "__render__"
"""In ``ObservationMap.images``: the image is what ``env.render()`` returns."""

Order = npt.NDArray[np.intp]


class RolloutError(UserError):
    """Environment, policy and embodiment do not fit; the message names the environment."""


class RobotInterface(Protocol):
    """What an environment is asked for; every ``Embodiment`` is one."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def control_hz(self) -> float:
        """Control rate [Hz]."""

    @property
    def state_features(self) -> list[str]:
        """Names of the state vector, n_s of them."""

    @property
    def action_features(self) -> list[str]:
        """Names of the action vector, n_a of them."""

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras."""


@dataclass
class ObservationMap:
    """Where an environment's observation holds the embodiment's features.

    Keys of nested dictionaries are joined by ``/``, e.g. ``pixels/top``.

    Attributes:
        state: key of the state vector; empty: the observation itself is the vector; several keys:
            their vectors, one after the other.
        images: camera of the embodiment → key of its (Y, X, 3) uint8 image; ``__render__``: what
            ``env.render()`` returns.
        instruction: key of ``info`` that holds the task in words.
        text: a fixed task in words, in place of that key.
        state_names: names of the state's entries, of which the embodiment takes its own; by
            default the environment's ``state_names``, else it must have the embodiment's.
    """

    state: str | list[str] = "state"
    images: dict[str, str] = field(default_factory=dict)
    instruction: str = "instruction"
    text: str = ""
    state_names: list[str] = field(default_factory=list)

    @property
    def state_keys(self) -> list[str]:
        """The keys of ``state``."""
        return [self.state] if isinstance(self.state, str) else self.state


class Compatibility(NamedTuple):
    """The checks; every method raises a ``RolloutError`` that says what does not fit."""

    env: gymnasium.Env[Any, Any]
    env_id: str
    robot: RobotInterface
    observation_map: ObservationMap

    def check_rate(self) -> None:
        """An environment that tells its ``control_hz`` must run at the robot's."""
        rate = getattr(self.env.unwrapped, "control_hz", self.robot.control_hz)
        if rate != self.robot.control_hz:
            raise RolloutError(
                f"environment {self.env_id!r} runs at {rate} Hz, but embodiment "
                f"{self.robot.name!r} is controlled at {self.robot.control_hz} Hz"
            )

    def state_order(self) -> Order:
        """Entries (n_s,) of the environment's state that are the robot's features."""
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
        shapes = [space.shape if isinstance(space, Box) else None for space in spaces]
        flat = [shape[0] for shape in shapes if shape is not None and len(shape) == 1]
        if len(flat) < len(keys) or sum(flat) != len(names or expected):
            raise RolloutError(
                f"environment {self.env_id!r} has a state of shape "
                f"{shapes[0] if len(keys) == 1 else shapes}, but {self._expects(names)}"
            )
        return self._order("state", names, expected)

    def action_order(self) -> tuple[Order, Box]:
        """Entries (n_a,) of the environment's action in the robot's order, and their bounds."""
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

    def image_space(self) -> Box:
        """Space (C, Y, X, 3) of the robot's cameras; resets an environment that is rendered."""
        shapes = {camera: self._image_shape(camera) for camera in self.robot.cameras}
        if len(set(shapes.values())) > 1:
            raise RolloutError(
                f"environment {self.env_id!r}: its cameras differ in size, {shapes}; "
                "expected one size"
            )
        return Box(0, 255, (len(shapes), *next(iter(shapes.values()))), np.uint8)

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
        if images[camera] == RENDER:
            self.env.reset(seed=0)
            return render(self.env, self.env_id).shape
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
    """The entry of a nested observation under ``a/b``; everything under the empty key."""
    for part in key.split("/") if key else []:
        observation = observation[part]
    return observation


def find_space(space: Space[Any], key: str) -> Space[Any] | None:
    """The space of the entry under ``a/b``; None where there is none, or more than one."""
    for part in key.split("/") if key else []:
        if not isinstance(space, Dict) or part not in space.spaces:
            return None
        space = space.spaces[part]
    return None if isinstance(space, Dict) else space


def render(env: gymnasium.Env[Any, Any], env_id: str) -> Frame:
    """A copy of the environment's (Y, X, 3) picture.

    Raises:
        RolloutError: it renders anything else.
    """
    frame = env.render()
    if not _is_image(frame):
        found = f"{frame.shape} {frame.dtype}" if isinstance(frame, np.ndarray) else type(frame)
        raise RolloutError(
            f"environment {env_id!r}: render() returned {found}, expected a (Y, X, 3) uint8 image; "
            "make it with render_mode='rgb_array' or film no episode"
        )
    return np.array(frame)


def _keys(space: Space[Any]) -> str:
    return f"keys {list(space.spaces)}" if isinstance(space, Dict) else f"no keys, {space}"


def _is_image(value: object) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[-1] == 3
    )
