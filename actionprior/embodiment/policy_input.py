"""Check what a robot or a client gives to a policy; the messages name the key.

Axes: n_s state features, C cameras, Y rows, X columns.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.arrays import Images
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import PolicyError, shorten


class CheckedObservation(NamedTuple):
    """An observation that passed ``check_observation``."""

    state: FloatArray  # (n_s,)
    images: Images | None  # (C, Y, X, 3)
    task: str


def as_array(value: object, name: str) -> npt.NDArray[Any]:
    """Return a vector or an image as an array; tensors may be on any device, of any type.

    Args:
        value: Array, tensor or nested list.
        name: What the value is, for the message.

    Raises:
        PolicyError: It has no regular shape, or does not consist of numbers.
    """
    try:
        if isinstance(value, Tensor):
            plain = value.detach().cpu()
            array = (plain.float() if plain.is_floating_point() else plain).numpy()
        else:
            array = np.asarray(value)
    except Exception as error:  # of whatever the value's class does
        raise PolicyError(
            f"{name} is a {type(value).__name__} that is no array: {shorten(error)}; expected "
            "numbers in rows of equal length"
        ) from None
    if array.dtype == object:
        raise PolicyError(
            f"{name} is a {type(value).__name__} of other things than numbers; expected numbers "
            "in rows of equal length"
        )
    return array


def observation_keys(robot: Embodiment) -> list[str]:
    """List the keys that an observation of a robot must have."""
    return [*([robot.state_key] if robot.state else []), *robot.cameras, "task"]


def check_observation(
    observation: Mapping[str, Any], robot: Embodiment, image_shape: ImageShape | None = None
) -> CheckedObservation:
    """Check an observation of a robot and extract a policy's input.

    Args:
        observation: Observation, see ``Policy``.
        robot: Robot that the policy acts for.
        image_shape: Size to which the images are brought. None keeps their own sizes, which must
            then be one and the same.

    Raises:
        PolicyError: A key is missing, or has a wrong shape, type or NaN. The message names it.
    """
    wanted = observation_keys(robot)
    if missing := [key for key in wanted if key not in observation]:
        raise PolicyError(
            f"the observation lacks {', '.join(map(repr, missing))}; "
            f"robot {robot.name!r} needs {wanted}, found {sorted(map(str, observation))}"
        )
    given = observation.get(robot.state_key, np.zeros(0))  # robots may have no state
    state = as_array(given, repr(robot.state_key))
    count = len(robot.state_features)
    real = np.issubdtype(state.dtype, np.integer) or np.issubdtype(state.dtype, np.floating)
    if state.shape != (count,) or not real:
        raise PolicyError(
            f"{robot.state_key!r} is {state.dtype} of shape {state.shape}, "
            f"expected {count} numbers: {', '.join(robot.state_features)}"
        )
    state = state.astype(np.float32)
    if not np.isfinite(state).all():
        bad = [f for f, v in zip(robot.state_features, state, strict=True) if not np.isfinite(v)]
        raise PolicyError(f"{robot.state_key!r} is not finite at {', '.join(bad)}")
    task = observation["task"]
    if not isinstance(task, str):
        raise PolicyError(f"'task' is a {type(task).__name__}, expected a string")
    images = [_image(observation[key], key) for key in robot.cameras]
    if image_shape is not None:
        images = [image_shape.apply_to_array(image) for image in images]
    if len({image.shape for image in images}) > 1:
        sizes = {key: i.shape for key, i in zip(robot.cameras, images, strict=True)}
        raise PolicyError(
            f"images differ in size: {sizes}; expected one size for all, because this policy's "
            "file does not say at which size it was trained"
        )
    return CheckedObservation(state, np.stack(images) if images else None, task)


def _image(value: object, key: str) -> Images:
    image = as_array(value, repr(key))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise PolicyError(
            f"{key!r} is {image.dtype} of shape {image.shape}, expected uint8 (rows, columns, 3)"
        )
    return image
