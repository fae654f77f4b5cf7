"""Weights in safetensors files that are written atomically and checked when they are read.

safetensors itself does not check content, so a digest of it is kept in the file's metadata.
"""

from collections.abc import Buffer, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from actionprior.errors import UserError
from actionprior.files.atomic import atomic_file
from actionprior.files.digest import digest

DIGEST_KEY = "content_sha256"  # key of the file's metadata


class WeightsError(UserError):
    """A weights file cannot be used; the message names it."""


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights and their digest; the file appears complete or not at all."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with atomic_file(path) as part:
        save_file(plain, part, metadata={"format": "pt", DIGEST_KEY: digest(*_content(plain))})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights onto the CPU and compare them with the file's digest, if it has one.

    Raises:
        WeightsError: missing, cut short, changed, or not a safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"weights {path} do not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"weights {path} cannot be read as safetensors ({error})") from None
    if DIGEST_KEY in metadata and metadata[DIGEST_KEY] != digest(*_content(weights)):
        raise WeightsError(
            f"weights {path} are damaged: their content is not what was written; copy them again"
        )
    return weights


def wrong_shape(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[str, tuple[int, ...] | None, tuple[int, ...] | None] | None:
    """Return the first name whose shapes differ, with both shapes; None if all are equal.

    A shape is None where the name is missing.
    """
    for name in sorted(found.keys() | expected.keys()):
        here, there = (tuple(d[name].shape) if name in d else None for d in (found, expected))
        if here != there:
            return name, here, there
    return None


def _content(weights: Mapping[str, Tensor]) -> Iterator[str | Buffer]:
    """Yield names, types, shapes and bytes of tensors, in the order of their names."""
    for name in sorted(weights):
        value = weights[name]
        yield f"{name} {value.dtype} {tuple(value.shape)}\n"
        yield value.reshape(-1).view(torch.uint8).numpy()
