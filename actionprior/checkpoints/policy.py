"""Policies as plain data and weights: what a checkpoint and an exported folder say of a network.

Nothing that a file names is imported, and nothing in it is unpickled.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from actionprior.checkpoints.reading import CheckpointError, read_checkpoint
from actionprior.embodiment import Embodiment
from actionprior.errors import shorten
from actionprior.networks import trunks
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import Trunk

STAGE2 = "vla"  # a checkpoint's key of the description of all but the prior
PRIOR = "motion_prior"  # a checkpoint's key of ``MotionPrior.describe()``
SETTINGS = (
    "history",
    "width",
    "depth",
    "heads",
    "prefix_steps",
    "integration_steps",
    "integrator",
)
"""Arguments of ``PolicyNetwork`` that are plain numbers and words."""
PRETRAINED_ARGS = {"weights", "pretrained", "text_pretrained", "mean", "std", "quick_gelu"}
"""What a trunk is first loaded from, as its ``init_args()`` leaves it for rebuilding."""

Description = dict[str, Any]


def described_trunk(trunk: Trunk) -> Description:
    """Plain data that ``make_trunk`` builds the trunk from again."""
    return {"name": type(trunk).__name__, "init_args": trunk.init_args()}


def make_trunk(description: Description, path: str | Path, trunk: Trunk | None = None) -> Trunk:
    """The described trunk with fresh weights; of ours by name, any other as ``trunk``.

    Raises:
        CheckpointError: a trunk that is not ours, and none given.
    """
    name = description["name"]
    if trunk is None and name not in trunks.__all__:
        raise CheckpointError(f"{path} uses the trunk {name!r}; pass one as trunk=")
    return trunk or getattr(trunks, name)(**description["init_args"])


def describe(checkpoint: dict[str, Any], path: str | Path) -> Description:
    """What a Stage-2 checkpoint says of its network.

    Raises:
        CheckpointError: it is not one.
    """
    if STAGE2 not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of VLAModule")
    told = checkpoint[STAGE2]
    settings = {key: told["settings"][key] for key in SETTINGS if key in told["settings"]}
    return {
        "embodiments": told["embodiments"],
        "trunk": told["trunk"],
        PRIOR: checkpoint[PRIOR],
        "settings": settings,
    }


def build_network(
    description: Description, path: str | Path, trunk: Trunk | None = None
) -> PolicyNetwork:
    """The described network with fresh weights; arguments as of ``build``.

    Raises:
        CheckpointError: a description that lacks something, or an unknown trunk.
    """
    try:
        return PolicyNetwork(
            [Embodiment.from_dict(e) for e in description["embodiments"]],
            make_trunk(description["trunk"], path, trunk),
            MotionPrior.from_description(description[PRIOR]),
            **description["settings"],
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the policy's description is damaged ({error})") from None


def fill(network: PolicyNetwork, weights: dict[str, Tensor], path: str | Path) -> None:
    """Put weights into a network; every name and shape has to fit.

    Raises:
        CheckpointError: they do not.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit the file's own description ({shorten(error)})"
        ) from None


def build(
    description: Description,
    weights: dict[str, Tensor],
    path: str | Path,
    trunk: Trunk | None = None,
) -> PolicyNetwork:
    """A network from its description and weights, in evaluation mode.

    Args:
        description: as ``describe`` gives it.
        weights: the network's, each name and shape as described.
        path: for messages.
        trunk: needed only where the policy's trunk is not one of ours.

    Raises:
        CheckpointError: an unknown trunk, or weights that are not as described.
    """
    network = build_network(description, path, trunk)
    fill(network, weights, path)
    network.trunk.merge()
    return network.eval()


def load_network(path: str | Path, trunk: Trunk | None = None) -> PolicyNetwork:
    """The network of a Stage-2 checkpoint.

    Raises:
        CheckpointError: missing, damaged, of another module, or as ``build``.
    """
    return network_from_checkpoint(read_checkpoint(path), path, trunk)


def network_from_checkpoint(
    checkpoint: dict[str, Any], path: str | Path, trunk: Trunk | None = None
) -> PolicyNetwork:
    """The network of a Stage-2 checkpoint that was read; see ``load_network``."""
    prefix = "network."
    weights = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    return build(describe(checkpoint, path), weights, path, trunk)
