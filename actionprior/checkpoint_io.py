"""Checkpoints that a kill cannot damage and that cannot run code when they are read."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol

from actionprior.checkpoint_formats import migrate
from actionprior.errors import UserError


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
    checkpoint = _read(Path(path))
    _require_lightning(checkpoint, path)
    migrate(checkpoint, path)
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it with ``weights_only=True`` always.

    Lightning stages a checkpoint in ``$TMPDIR`` and moves it without fsync, which across file
    systems is a copy that a kill cuts short. Here the temporary file lies beside its target.
    Remote paths (``s3://`` and the like) are left to Lightning's own writer.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; until the last moment ``path`` keeps what it held."""
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name must not hold the target's: Lightning finds checkpoints by parts of names.
        part = target.parent / f".{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at ``path``, whatever ``weights_only`` says without unpickling.

        Raises:
            CheckpointError: as ``read_checkpoint``.
        """
        if not _is_local_file_protocol(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        checkpoint = _read(Path(path), map_location)
        if weights_only is not None:  # None: Lightning's processes hand each other bare weights
            _require_lightning(checkpoint, path)
        return checkpoint


def _read(path: Path, map_location: Callable[..., Any] | None = None) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not a file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"checkpoint {path} is cut short, or is not a checkpoint")
    try:
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and plain data{what}, so it is not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"checkpoint {path} holds a {type(checkpoint).__name__}, expected a dict of Lightning's"
        )
    return checkpoint


def _require_lightning(checkpoint: dict[str, Any], path: str | Path) -> None:
    for key in ("state_dict", "pytorch-lightning_version"):
        if key not in checkpoint:
            raise CheckpointError(f"checkpoint {path} has no {key!r}: Lightning did not write it")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
