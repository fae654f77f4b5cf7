"""Build policies from the descriptions and weights of checkpoints and exported folders.

No class that a file names is imported, and nothing in a file is unpickled.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import FORMAT
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.errors import UserError, shorten
from actionprior.networks import trunks
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import Trunk, TrunkChoice

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
    try:
        return trunk.from_init_args(description["init_args"])
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
    }


def policy_description(checkpoint: dict[str, Any], path: str | Path) -> Description:
    """Return a Stage-2 checkpoint's description of its policy, without the prior.

    Raises:
        CheckpointError: it is not a Stage-2 checkpoint.
    """
    if keys.POLICY not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of VLAModule")
    description: Description = checkpoint[keys.POLICY]
    return description


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
        CheckpointError: an incomplete description, an unknown trunk, or weights that do not fit.
    """
    try:
        network = PolicyNetwork(
            [Embodiment.from_dict(e) for e in description["embodiments"]],
            make_trunk(description["trunk"], path, trunk),
            MotionPrior.from_description(description[keys.PRIOR]),
            **{key: description["settings"][key] for key in SETTINGS},
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the policy's description is damaged ({error})") from None
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
    description = policy_description(checkpoint, path) | {keys.PRIOR: checkpoint[keys.PRIOR]}
    weights = keys.below(keys.NETWORK_PREFIX, checkpoint[keys.WEIGHTS])
    return build_network(description, path, trunk, weights)


def load_weights_into(module: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Load weights into a module; every name and shape has to fit.

    Raises:
        CheckpointError: naming the weights that do not fit.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit the file's own description ({shorten(error)})"
        ) from None
