"""Read checkpoints without running code that they hold; needs torch but not Lightning."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import check_checkpoint_format
from actionprior.errors import UserError, shorten

INDEX = "index.json"
"""File that marks a folder as a sharded checkpoint."""
_NAMED = 5
"""Largest number of checkpoints that a message names."""


class CheckpointError(UserError):
    """A checkpoint file cannot be used; the message names it."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a local Lightning checkpoint onto the CPU: tensors and plain data, never unpickled.

    Raises:
        CheckpointError: the file is missing, cut short, not a Lightning checkpoint, or holds
            more than tensors and plain data.
        FormatError: another version of actionprior wrote it in a format unknown to this one.
    """
    checkpoint = read_local(Path(path))
    require_lightning(checkpoint, path)
    check_checkpoint_format(checkpoint, path)
    return checkpoint


def read_local(path: Path, map_location: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Read a dict from a local file without unpickling; Lightning need not have written it.

    Args:
        path: File that ``torch.save`` wrote.
        map_location: Where tensors go, as for ``torch.load``; None: the CPU.

    Raises:
        CheckpointError: missing, damaged, or with more than tensors and plain data in it.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if (path / INDEX).is_file():
        raise CheckpointError(
            f"checkpoint {path} is a folder of shards, which only ShardedStrategy reads; make it "
            f"one file: lightning consolidate {path} FILE.ckpt"
        )
    if not path.is_file():
        raise CheckpointError(other_folder(path) or f"checkpoint {path} is not a file")
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
            f"checkpoint {path} holds a {type(checkpoint).__name__}, expected Lightning's dict"
        )
    return checkpoint


def other_folder(path: Path) -> str | None:
    """Say what a folder is that was given in place of a checkpoint; None if that is unknown."""
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        return f"{path} is an exported policy; give the checkpoint that it was exported from"
    if names := sorted(found.name for found in path.glob("*.ckpt")):
        listed = ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])
        return f"{path} is a folder of checkpoints; give one of them: {listed}"
    return None


def _check_content(path: Path) -> None:
    """Compare every record with its checksum, because torch reads flipped bits silently.

    Raises:
        CheckpointError: a record differs, or is compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.save compresses nothing; a small file could unpack to any size.
            if any(r.compress_type != zipfile.ZIP_STORED for r in archive.infolist()):
                raise CheckpointError(
                    f"checkpoint {path} holds compressed records, which torch.save never writes, "
                    "so it is not loaded"
                )
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise CheckpointError(f"checkpoint {path} is damaged: it has a record twice")
            changed = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {shorten(error)}") from error
    if changed is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: {changed} is not what was written")


def require_lightning(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse a dict that Lightning did not write.

    Raises:
        CheckpointError: a key that Lightning always writes is missing.
    """
    for key in (keys.WEIGHTS, keys.VERSION):
        if key not in checkpoint:
            raise CheckpointError(f"checkpoint {path} has no {key!r}: Lightning did not write it")
