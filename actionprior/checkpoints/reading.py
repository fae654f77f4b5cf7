"""Checkpoints that cannot run code when they are read; torch alone, no Lightning."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from actionprior.checkpoints.formats import migrate
from actionprior.errors import UserError, shorten

INDEX = "index.json"  # what a folder of shards has, and is one by


class CheckpointError(UserError):
    """A checkpoint file cannot be used; the message names it."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a local Lightning checkpoint onto the CPU: tensors and plain data, never unpickled.

    One of an older format comes as one of the newest.

    Raises:
        CheckpointError: the file is missing, cut short, not a Lightning checkpoint, or holds
            more than tensors and plain data.
        FormatError: a newer version wrote it.
    """
    checkpoint = read_local(Path(path))
    require_lightning(checkpoint, path)
    migrate(checkpoint, path)
    return checkpoint


def read_local(path: Path, map_location: Callable[..., Any] | None = None) -> dict[str, Any]:
    """What a local file holds, onto the CPU or as ``map_location`` says; never unpickled.

    Raises:
        CheckpointError: as ``read_checkpoint``, but for whose it is.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if (path / INDEX).is_file():
        raise CheckpointError(
            f"checkpoint {path} is a folder of shards, which only ShardedStrategy reads; make it "
            f"one file: lightning consolidate {path} FILE.ckpt"
        )
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not a file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"checkpoint {path} is cut short, or is not a checkpoint")
    _check_content(path)
    try:
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and plain data{what}, so it is not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {shorten(error)}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"checkpoint {path} holds a {type(checkpoint).__name__}, expected a dict of Lightning's"
        )
    return checkpoint


def _check_content(path: Path) -> None:
    """Compare every record with its checksum: torch reads weights with flipped bits silently.

    Raises:
        CheckpointError: one differs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {shorten(error)}") from error
    if changed is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: {changed} is not what was written")


def require_lightning(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse what Lightning did not write.

    Raises:
        CheckpointError: a key of Lightning's is missing.
    """
    for key in ("state_dict", "pytorch-lightning_version"):
        if key not in checkpoint:
            raise CheckpointError(f"checkpoint {path} has no {key!r}: Lightning did not write it")
