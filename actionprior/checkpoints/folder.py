"""An exported policy: a folder of ``config.json`` and ``model.safetensors``, nothing pickled.

The folder is a LeRobot policy, too: ``config.json`` is what its configuration class reads, and
ours lies in it under one key.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from actionprior.checkpoints.formats import FORMAT, FormatError
from actionprior.checkpoints.policy import (
    PRIOR,
    SETTINGS,
    Description,
    build,
    described_trunk,
    load_network,
)
from actionprior.checkpoints.reading import INDEX, CheckpointError
from actionprior.files.digest import digest
from actionprior.files.weights import load_weights, save_weights
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import Trunk

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
OURS = "actionprior"  # the key of ``config.json`` under which our description lies
_DIGEST = "content_sha256"  # in our part, of the rest of it
EXECUTION = ("embodiment", "execute_steps", "delay_steps")
"""Arguments of ``actionprior.Policy`` that a folder may say."""


def describe_network(network: PolicyNetwork) -> Description:
    """Plain data from which ``policy_checkpoint.build`` makes the network again."""
    return {
        "format": FORMAT,
        "embodiments": [e.to_dict() for e in network.embodiments],
        "trunk": described_trunk(network.trunk),
        PRIOR: network.prior.describe(),
        "settings": {key: getattr(network, key) for key in SETTINGS},
    }


def write_folder(
    network: PolicyNetwork,
    config: dict[str, Any],
    folder: Path,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write an exported policy.

    Args:
        network: the policy.
        config: LeRobot's part of ``config.json`` and, under ``actionprior``, what
            ``actionprior.Policy`` is to be made with.
        folder: made where it is missing; files in it of the same names are replaced.
        weights: of the network, where they had to be gathered; None: its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = describe_network(network) | config.get(OURS, {})
    told = config | {OURS: ours | {_DIGEST: _digest(ours)}}
    (folder / CONFIG).write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    save_weights(network.state_dict() if weights is None else weights, folder / WEIGHTS)


def read_config(folder: Path) -> Description:
    """Our part of an exported folder's ``config.json``, with the content that was written.

    Raises:
        CheckpointError: missing, damaged, changed, or of another policy.
        FormatError: a newer version wrote it.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {CONFIG}: it is no exported policy") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from None
    told = config.get(OURS) if isinstance(config, dict) else None
    if not isinstance(told, dict):
        raise CheckpointError(f"{path} has no {OURS!r}: another program wrote it")
    check_format(told, path)
    check_digest(told, path)
    return told


def check_digest(description: Description, path: str | Path) -> None:
    """Refuse a description that is not what was written; older ones have no digest.

    Raises:
        CheckpointError: naming the path.
    """
    if description.get(_DIGEST, wanted := _digest(description)) != wanted:
        raise CheckpointError(
            f"{path} is damaged: its part {OURS!r} is not what was written; copy it anew, or "
            "export the policy with other settings rather than changing the file"
        )


def _digest(description: Description) -> str:
    plain = {key: value for key, value in description.items() if key != _DIGEST}
    return digest(json.dumps(plain, sort_keys=True))


def check_format(description: Description, path: str | Path) -> None:
    """Refuse what a newer version wrote.

    Raises:
        FormatError: naming the path.
    """
    found = description.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise FormatError(
            f"{path} is of format {found!r}, and this version of actionprior reads up to "
            f"{FORMAT}; update actionprior"
        )


def load_folder(
    folder: str | Path, trunk: Trunk | None = None
) -> tuple[PolicyNetwork, dict[str, Any]]:
    """The network of an exported folder, and what it says of how to execute its chunks.

    Raises:
        CheckpointError: missing, damaged, or with weights that are not as described.
        WeightsError: the weights are missing or damaged.
    """
    told = read_config(Path(folder))
    network = build(told, load_weights(Path(folder) / WEIGHTS), folder, trunk)
    return network, {key: told[key] for key in EXECUTION if key in told}


def load_policy_network(
    path: str | Path, trunk: Trunk | None = None
) -> tuple[PolicyNetwork, dict[str, Any]]:
    """The network of a Stage-2 checkpoint or of an exported folder; see ``load_folder``."""
    if Path(path).is_dir() and not (Path(path) / INDEX).exists():  # that is told below
        return load_folder(path, trunk)
    return load_network(path, trunk), {}
