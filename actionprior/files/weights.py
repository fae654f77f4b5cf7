"""Weights in safetensors files that a kill cannot cut short and a flipped bit cannot change.

safetensors itself checks no content: a digest of it lies in the file's metadata.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from actionprior.errors import UserError

_DIGEST = "content_sha256"


class WeightsError(UserError):
    """A file of weights cannot be used; the message names it."""


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights with a digest of them, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(plain, part, metadata={"format": "pt", _DIGEST: _digest(plain)})
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights onto the CPU; where the file has a digest, its content must have it, too.

    Raises:
        WeightsError: missing, cut short, changed, or not a safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"weights {path} do not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it has keys alone
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"weights {path} cannot be read as safetensors ({error})") from None
    if _DIGEST in metadata and metadata[_DIGEST] != _digest(weights):
        raise WeightsError(
            f"weights {path} are damaged: their content is not what was written; copy them anew"
        )
    return weights


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
