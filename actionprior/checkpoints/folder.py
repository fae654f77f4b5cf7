"""Exported policies: folders of ``config.json`` and ``model.safetensors``, with nothing pickled.

The folder is also a LeRobot policy: LeRobot's configuration class reads ``config.json``, and one
key of it holds the description from which actionprior builds the network.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import check_format
from actionprior.checkpoints.policy import (
    Description,
    build_network,
    describe_network,
    network_from_checkpoint,
)
from actionprior.checkpoints.reading import INDEX, CheckpointError, other_folder, read_checkpoint
from actionprior.files.atomic import write_json
from actionprior.files.digest import digest
from actionprior.files.plain_json import JsonError, read_json
from actionprior.files.weights import load_weights, save_weights
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import TrunkChoice

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
EXECUTION = ("embodiment", "execute_steps", "delay_steps", "guard", "guard_margin")
"""Arguments of ``actionprior.Policy`` that a folder may set."""


def write_folder(
    network: PolicyNetwork,
    config: dict[str, Any],
    folder: Path,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write an exported policy.

    Args:
        network: Policy to write.
        config: LeRobot's part of ``config.json``; its key ``actionprior`` may hold arguments of
            ``actionprior.Policy``.
        folder: Folder to write to, created if missing; files of the same names are replaced.
        weights: Weights of the network, if they had to be gathered from several processes; None
            takes the network's own.
    """
    description = describe_network(network) | config.get(keys.CONFIG_PART, {})
    description[keys.CONFIG_DIGEST] = _description_digest(description)
    write_json(config | {keys.CONFIG_PART: description}, folder / CONFIG)
    save_weights(network.state_dict() if weights is None else weights, folder / WEIGHTS)


def read_config(folder: Path) -> Description:
    """Read the network's description from an exported folder, and check its digest.

    Raises:
        CheckpointError: missing, damaged, changed, or of another policy.
        FormatError: a version with another format wrote it.
    """
    path = folder / CONFIG
    if not path.exists():
        raise CheckpointError(
            other_folder(folder) or f"{folder} has no {CONFIG}: it is not an exported policy"
        )
    try:
        config = read_json(path)
    except JsonError as error:
        raise CheckpointError(str(error)) from None
    description = config.get(keys.CONFIG_PART) if isinstance(config, dict) else None
    if not isinstance(description, dict):
        raise CheckpointError(f"{path} has no {keys.CONFIG_PART!r}: another program wrote it")
    check_description(description, path)
    return description


def check_description(description: Description, path: str | Path) -> None:
    """Refuse a description of another format, or one that was changed after it was written.

    Raises:
        CheckpointError: it was changed.
        FormatError: a version with another format wrote it.
    """
    check_format(description.get(keys.CONFIG_FORMAT), path)
    if description.get(keys.CONFIG_DIGEST) != _description_digest(description):
        raise CheckpointError(
            f"{path} is damaged: its part {keys.CONFIG_PART!r} is not what was written; copy it "
            "again, or export the policy with other settings rather than changing the file"
        )


def _description_digest(description: Description) -> str:
    plain = {key: value for key, value in description.items() if key != keys.CONFIG_DIGEST}
    return digest(json.dumps(plain, sort_keys=True))


def load_policy_network(
    path: str | Path, trunk: TrunkChoice = None
) -> tuple[PolicyNetwork, dict[str, Any]]:
    """Load a policy that is ready to act.

    Args:
        path: Stage-2 checkpoint, or exported folder.
        trunk: Class of the policy's trunk, or a built one; needed if it is none of actionprior's.

    Returns:
        The network, and those arguments of ``actionprior.Policy`` that an exported folder sets.

    Raises:
        CheckpointError: missing, damaged, of another module, or with weights that do not fit.
        WeightsError: the weights of an exported folder are missing or damaged.
    """
    folder = Path(path)
    # A sharded checkpoint is a folder, too; `read_checkpoint` says how to make it one file.
    if not folder.is_dir() or (folder / INDEX).exists():
        return network_from_checkpoint(read_checkpoint(path), path, trunk), {}
    description = read_config(folder)
    network = build_network(description, path, trunk, load_weights(folder / WEIGHTS))
    return network, {key: description[key] for key in EXECUTION if key in description}
