"""Build policies from the descriptions and weights of checkpoints and exported folders.

No class that a file names is imported, and nothing in a file is unpickled.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actionprior.checkpoints import keys
from actionprior.checkpoints.description import (
    PolicyFields,
    PriorFields,
    check_arguments,
    check_fields,
    check_sizes,
    limited_to,
)
from actionprior.checkpoints.formats import FORMAT
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import UserError, shorten
from actionprior.networks import trunks
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import Trunk, TrunkChoice
from actionprior.networks.trunks.hub import without_network

SETTINGS = (
    "history",
    "width",
    "depth",
    "heads",
    "prefix_steps",
    "integration_steps",
    "integrator",
)
"""Arguments of ``PolicyNetwork`` that are numbers or strings."""

Description = dict[str, Any]


def describe_trunk(trunk: Trunk) -> Description:
    """Describe a trunk as plain data, from which ``make_trunk`` rebuilds it.

    ``class_path`` is for people to read: no class that a file names is ever imported.
    """
    kind = type(trunk)
    return {
        "name": kind.__name__,
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": trunk.init_args(),
    }


def is_builtin(description: Description) -> bool:
    """Check whether a described trunk is one of actionprior's."""
    package = f"{trunks.__name__}."  # version 0.1.0 recorded no class_path
    path = description.get("class_path", f"{package}{description['name']}")
    return description["name"] in trunks.__all__ and str(path).startswith(package)


def make_trunk(description: Description, path: str | Path, trunk: TrunkChoice = None) -> Trunk:
    """Build the described trunk with fresh weights.

    Args:
        description: What ``describe_trunk`` returned.
        path: The checkpoint's path, for messages.
        trunk: Class of the trunk or a trunk that is built already. Needed if the described trunk
            is none of actionprior's.

    Raises:
        CheckpointError: The trunk is none of actionprior's and ``trunk`` is None, ``trunk`` is
            another class, or the class does not take the recorded arguments.
    """
    if isinstance(trunk, Trunk):
        return trunk
    name = description["name"]
    if trunk is None:
        if not is_builtin(description):
            module = str(description.get("class_path", f"my_module.{name}"))
            raise CheckpointError(
                f"{path} uses the trunk {name!r}, which is none of actionprior's; give its class: "
                f"--trunk {module} on the command line, trunk={name} in Python"
            )
        trunk = getattr(trunks, name)
    elif trunk.__name__ != name:
        raise CheckpointError(
            f"{path} uses the trunk {name!r}, but the trunk that was given is {trunk.__name__!r}; "
            "give the class that the policy was trained with"
        )
    recorded = trunk.without_sources(description["init_args"])
    try:
        arguments = trunk.constructor_args(recorded)
        check_arguments(trunk, arguments, path, "trunk.init_args")
        with without_network():
            return trunk.from_init_args(recorded)
    except CheckpointError:
        raise
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error


def describe_network(network: PolicyNetwork) -> Description:
    """Describe a policy as plain data, from which ``build_network`` rebuilds it."""
    return {
        keys.CONFIG_FORMAT: FORMAT,
        "embodiments": [e.to_dict() for e in network.embodiments],
        "trunk": describe_trunk(network.trunk),
        keys.PRIOR: network.prior.describe(),
        "settings": {key: getattr(network, key) for key in SETTINGS},
        keys.IMAGE_SHAPE: _plain_image_shape(network),
    }


def describe_policy(network: PolicyNetwork, settings: dict[str, Any]) -> Description:
    """Describe a policy without its prior, for a checkpoint of Stage 2.

    Args:
        network: The policy.
        settings: Arguments of the module that trains it.
    """
    return {
        "embodiments": [e.to_dict() for e in network.embodiments],
        "trunk": describe_trunk(network.trunk),
        "settings": settings,
        keys.IMAGE_SHAPE: _plain_image_shape(network),
    }


def _plain_image_shape(network: PolicyNetwork) -> Description | None:
    return None if network.image_shape is None else network.image_shape.to_plain()


def recorded_image_shape(description: Description) -> ImageShape | None:
    """Return the size of the images that a described policy was trained on, None if unknown.

    Raises:
        UserError: A number is out of range.
    """
    return ImageShape.from_plain(description.get(keys.IMAGE_SHAPE))


def policy_description(checkpoint: dict[str, Any], path: str | Path) -> Description:
    """Return a Stage-2 checkpoint's description of its policy, without the prior.

    Raises:
        CheckpointError: it is not a Stage-2 checkpoint, or the description is damaged.
    """
    if keys.POLICY not in checkpoint:
        kind = "is of Stage 1" if keys.PRIOR in checkpoint else "is not a checkpoint of VLAModule"
        raise CheckpointError(f"{path} {kind}, expected one of Stage 2, such as policy.ckpt")
    return check_fields(PolicyFields, checkpoint[keys.POLICY], path, keys.POLICY)


def recorded_trunk(checkpoint: dict[str, Any], path: str | Path) -> Description:
    """Return the description of a checkpoint's trunk; empty if it is not of Stage 2.

    Raises:
        CheckpointError: the description is damaged.
    """
    if keys.POLICY not in checkpoint:
        return {}
    trunk: Description = policy_description(checkpoint, path)["trunk"]
    return trunk


def weights_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return a checkpoint's state dict.

    Raises:
        CheckpointError: it has none, or the state dict holds more than tensors.
    """
    weights = checkpoint.get(keys.WEIGHTS)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and _is_plain(value) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path} is damaged: {keys.WEIGHTS!r} holds no plain tensors by name")
    return weights


def _is_plain(value: object) -> bool:
    """Check for a dense tensor of real numbers: neither nested, sparse, quantised nor complex."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout is not torch.strided:
        return False
    return not (value.is_quantized or value.is_complex())


def build_network(
    description: Description,
    path: str | Path,
    trunk: TrunkChoice = None,
    weights: dict[str, Tensor] | None = None,
) -> PolicyNetwork:
    """Build a policy from its description.

    Args:
        description: What ``describe_network`` returns.
        path: File of the description, for messages.
        trunk: Class of the policy's trunk, or a built one; needed if it is none of actionprior's.
        weights: Weights with which the policy is ready to act, in evaluation mode and with merged
            LoRA; None: fresh weights, in training mode.

    Raises:
        CheckpointError: an incomplete or damaged description, one that needs more weights than
            there are, an unknown trunk, or weights that do not fit or are not finite.
    """
    check_fields(PolicyFields, description, path, "")
    check_fields(PriorFields, description.get(keys.PRIOR), path, keys.PRIOR)
    with building_from(description, weights, path):
        network = PolicyNetwork(
            [Embodiment.from_dict(e) for e in description["embodiments"]],
            make_trunk(description["trunk"], path, trunk),
            MotionPrior.from_description(description[keys.PRIOR]),
            **{key: description["settings"][key] for key in SETTINGS},
            image_shape=recorded_image_shape(description),
        )
    if weights is not None:
        load_weights_into(network, weights, path)
        network.trunk.merge()
        network.eval()
    return network


def network_from_checkpoint(
    checkpoint: dict[str, Any], path: str | Path, trunk: TrunkChoice = None
) -> PolicyNetwork:
    """Build the policy of a Stage-2 checkpoint, ready to act.

    Args:
        checkpoint: Content of the checkpoint, as ``read_checkpoint`` returns it.
        path: File of the checkpoint, for messages.
        trunk: As for ``build_network``.

    Raises:
        CheckpointError: a checkpoint of another module, or as ``build_network``.
    """
    description = policy_description(checkpoint, path) | {keys.PRIOR: checkpoint.get(keys.PRIOR)}
    weights = keys.below(keys.NETWORK_PREFIX, weights_of(checkpoint, path))
    return build_network(description, path, trunk, weights)


def load_weights_into(module: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Load weights into a module; every name and shape has to fit, and every number be finite.

    Raises:
        CheckpointError: naming the weights that do not fit.
    """
    own = module.state_dict()
    for name, value in weights.items():
        known = own.get(name)
        if known is None or known.shape != value.shape:
            continue
        if known.is_floating_point() != value.is_floating_point():
            raise CheckpointError(
                f"{path} is damaged: the weights {name} are {value.dtype} in the file, but "
                f"{known.dtype} in the policy"
            )
        if bool(value.isfinite().all()):
            continue
        if bool(known.isfinite().all()):  # masks of attention are infinite by design
            raise CheckpointError(
                f"{path} is damaged: the weights {name} are not finite; load an earlier checkpoint"
            )
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: weights do not fit the file's own description ({shorten(error)})"
        ) from None


@contextmanager
def building_from(
    description: object, weights: Mapping[str, Tensor] | None, path: str | Path
) -> Iterator[None]:
    """Context manager: build a network from a file's description, with checks around it.

    Args:
        description: Description, whose numbers are compared with the weights.
        weights: Weights of the file; None if they are not known yet.
        path: The file, for messages.

    Raises:
        CheckpointError: The network needs more weights than there are, or anything else keeps it
            from being built; the message names the file.
    """
    check_sizes(description, weights, path)
    try:
        with limited_to(weights, path):
            yield
    except CheckpointError:
        raise
    except Exception as error:  # values of a file may break any line of a constructor
        raise CheckpointError(
            f"{path}: the policy's description is damaged ({type(error).__name__}: "
            f"{shorten(error)})"
        ) from error
