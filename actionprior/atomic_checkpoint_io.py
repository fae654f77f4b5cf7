"""Writes checkpoints that a kill cannot damage."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol

from actionprior.checkpoint_io import read_local, require_lightning


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
        checkpoint = read_local(Path(path), map_location)
        if weights_only is not None:  # None: Lightning's processes hand each other bare weights
            require_lightning(checkpoint, path)
        return checkpoint
