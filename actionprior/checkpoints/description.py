"""Check descriptions of networks, which are plain data from files, before anything is built.

Every value has the type that the code expects, and building stops once it needs more weights than
the file has. So a damaged or hostile description ends in one sentence instead of a crash at the
robot's first action, or of full memory.
"""

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import shown
from actionprior.flow_matching import Integrator
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.policy_network import History

MOST_DIMENSION = 4096
"""Largest whole number that a description may hold, unless its weights have a larger dimension."""
MOST_WITHOUT_WEIGHTS = 1 << 19
"""Largest whole number of a description before its weights are read: tables of words are long."""
SPARE_NUMBERS = 500_000_000
"""Weights that building a network may create and drop, besides four times those of the file."""
MOST_TENSORS = 50_000
MOST_NUMBERS = 1 << 34
"""Most weights of a network that is built before its file of weights is known."""


@dataclass
class TrunkFields:
    """Description of a trunk, see ``describe_trunk``."""

    name: str
    init_args: dict[str, Any]
    class_path: str = ""


@dataclass
class SettingsFields:
    """Arguments of ``PolicyNetwork`` that are numbers or strings."""

    history: History
    width: int
    depth: int
    heads: int
    prefix_steps: int
    integration_steps: int
    integrator: Integrator
    keyframe_weight: float = 0.0
    state_dropout: float = 0.0


@dataclass
class PriorFields:
    """Description of a prior, see ``MotionPrior.describe``."""

    architecture: PriorArchitecture
    embodiments: list[Embodiment]


@dataclass
class PolicyFields:
    """Description of a policy, see ``describe_network``; a checkpoint's has no prior."""

    embodiments: list[Embodiment]
    trunk: TrunkFields
    settings: SettingsFields
    motion_prior: PriorFields = field(default_factory=lambda: PriorFields(PriorArchitecture(), []))
    image_shape: ImageShape | None = None
    embodiment: str = ""
    execute_steps: int = 0
    delay_steps: int = 0


def check_fields(kind: type, data: object, path: str | Path, key: str) -> dict[str, Any]:
    """Check the types of plain data against a dataclass, also of what is nested in it.

    Args:
        kind: Dataclass with the expected fields. Fields without a default are required, and
            further keys are left to the constructors that take them.
        data: Plain data of a file.
        path: The file, for messages.
        key: Where the data stand in the file, for messages.

    Returns:
        The data.

    Raises:
        CheckpointError: A key is missing or a value has another type. The message names it.
    """
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged: {key} is {shown(data)}, expected a mapping")
    hints = get_type_hints(kind)
    for known in fields(kind):
        where = f"{key}.{known.name}" if key else known.name
        if known.name in data:
            _check_value(data[known.name], hints[known.name], path, where)
        elif known.default is MISSING and known.default_factory is MISSING:
            raise CheckpointError(f"{path} is damaged: {where} is missing")
    return data


def check_arguments(
    kind: Callable[..., object], arguments: Mapping[str, Any], path: str | Path, key: str
) -> None:
    """Check the types of a constructor's arguments, as far as its annotations are plain.

    Args:
        kind: Class that is constructed, or a function that makes it.
        arguments: Arguments by name; groups of settings may be built dataclasses.
        path: The file, for messages.
        key: Where the arguments stand in the file, for messages.

    Raises:
        CheckpointError: A value has another type. The message names it.
    """
    known = inspect.signature(kind, eval_str=True).parameters
    for name, value in arguments.items():
        if is_dataclass(value) and not isinstance(value, type):
            check_fields(type(value), vars(value), path, key)
        elif name in known:
            _check_value(value, known[name].annotation, path, f"{key}.{name}")


@contextmanager
def limited_to(weights: Mapping[str, Tensor] | None, path: str | Path) -> Iterator[None]:
    """Context manager: refuse to build a network that has more weights than a file.

    Args:
        weights: Weights of the file; None if they are not known yet.
        path: File of the description, for messages.

    Raises:
        CheckpointError: The network that is built in the context needs more weights.
    """
    if weights is None:
        tensors, numbers = MOST_TENSORS, MOST_NUMBERS
    else:
        tensors, numbers = len(weights), sum(map(_stored_numbers, weights.values()))
    seen, thread = [0, 0], threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != thread:
            return
        seen[0] += 1
        seen[1] += parameter.numel()
        # Libraries build more than is used, such as a classifier or the other tower of a CLIP.
        if seen[0] > 4 * tensors + 1000 or seen[1] > 4 * numbers + SPARE_NUMBERS:
            raise CheckpointError(
                f"{path} is damaged: its description needs more weights than the {tensors} tensors "
                f"of {numbers} numbers that come with it"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_sizes(
    description: object, weights: Mapping[str, Tensor] | None, path: str | Path
) -> None:
    """Refuse whole numbers that are larger than any dimension of the weights.

    Raises:
        CheckpointError: A number is larger. The message has it.
    """
    shapes = [size for value in (weights or {}).values() for size in value.shape]
    most = max(MOST_DIMENSION, *shapes) if shapes else MOST_WITHOUT_WEIGHTS
    waiting = [description]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, int) and abs(value) > most:
            raise CheckpointError(
                f"{path} is damaged: its description has the number {shown(value)}, but no "
                f"dimension of its weights is larger than {most}"
            )


def _stored_numbers(value: Tensor) -> int:
    """Count the numbers that a tensor stores; an expanded one may claim many more."""
    return min(value.numel(), value.untyped_storage().nbytes() // max(1, value.element_size()))


def _check_value(value: object, hint: Any, path: str | Path, where: str) -> None:  # noqa: ANN401  any type
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        options = [option for option in inner if option is not NoneType]
        if len(options) == 1 and value is not None:
            _check_value(value, options[0], path, where)
    elif is_dataclass(hint) and isinstance(hint, type):
        check_fields(hint, value, path, where)
    elif origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise _wrong(path, where, value, "a list")
        for i, entry in enumerate(value):
            _check_value(entry, inner[0], path, f"{where}[{i}]")
    elif origin is Literal:
        if value not in inner or not isinstance(value, str):
            raise _wrong(path, where, value, "one of " + ", ".join(map(repr, inner)))
    elif origin is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise _wrong(path, where, value, "a mapping with texts as keys")
    elif hint in _PLAIN:
        kinds, name = _PLAIN[hint]
        wrong = isinstance(value, bool) and hint is not bool
        if wrong or not isinstance(value, kinds):
            raise _wrong(path, where, value, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(path, where, value, "a finite number")


def _wrong(path: str | Path, where: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {where} is {shown(value)}, expected {expected}")


_PLAIN: dict[type, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
}
