"""Write checkpoints as single files that a kill cannot damage."""

import errno
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, override

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch.utils._pytree import tree_leaves

from actionprior.checkpoints.reading import CheckpointError, read_local, require_lightning
from actionprior.files.atomic import atomic_file

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and always read them with ``weights_only=True``.

    Lightning writes a checkpoint to ``$TMPDIR`` and moves it without fsync. Across file systems
    that is a copy, which a kill cuts short. Here the temporary file lies beside its target.
    Lightning's own writer handles remote paths such as ``s3://``.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``, which keeps its old content until the last moment.

        Raises:
            CheckpointError: the disk is full or not writable.
        """
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with disk_errors_explained(checkpoint, path):
            self._save(checkpoint, Path(path))

    def _save(self, checkpoint: dict[str, Any], target: Path) -> None:
        with atomic_file(target) as part, part.open("wb") as file:
            torch.save(checkpoint, file)

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at ``path`` without unpickling, whatever ``weights_only`` is.

        Raises:
            CheckpointError: as ``read_local``.
        """
        if not _is_local_file_protocol(path):
            try:
                return super().load_checkpoint(path, map_location, weights_only=True)
            except pickle.UnpicklingError as error:
                raise CheckpointError(
                    f"checkpoint {path} holds more than tensors and plain data, so it is not loaded"
                ) from error
        checkpoint = read_local(Path(path), map_location)
        if weights_only is not None:  # None: bare weights that Lightning's processes exchange
            require_lightning(checkpoint, path)
        return checkpoint


class AsyncAtomicCheckpointIO(AsyncCheckpointIO):
    """Write checkpoints in a thread while training continues, one at a time and in order.

    The thread writes a copy of the weights. A checkpoint that another one replaces is removed
    after that one is written, so a kill leaves one of them. An error of a save is raised at the
    next save or at the end of training.
    """

    def __init__(self) -> None:
        super().__init__(AtomicCheckpointIO())

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove ``path`` once all earlier saves are done."""
        if self._executor is None:
            super().remove_checkpoint(path)
            return
        self._executor.submit(self._remove_if_saved, path)

    def _remove_if_saved(self, path: str | Path) -> None:
        if self._error is None:
            super().remove_checkpoint(path)

    @override
    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint once all earlier saves are done."""
        if self._executor is not None:
            self._executor.submit(lambda: None).result()
        return super().load_checkpoint(*args, **kwargs)


@contextmanager
def disk_errors_explained(content: object, path: str | Path) -> Iterator[None]:
    """Context manager: turn errors of a full or read-only disk into user-facing ones.

    Args:
        content: What the block saves, to compute how much room it needs.
        path: Checkpoint that the block saves, for the message.

    Raises:
        CheckpointError: instead of the disk's error.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch wraps the first in the second
        if (reason := _disk_error(error)) is None:
            raise
        raise CheckpointError(
            f"checkpoint {path} cannot be saved: {reason.strerror} "
            f"({_room(content, path)}); what was saved before is kept"
        ) from error


def _disk_error(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            return error
        error = error.__cause__ or error.__context__
    return None


def _room(content: object, path: str | Path) -> str:
    tensors = [leaf for leaf in tree_leaves(content) if isinstance(leaf, torch.Tensor)]
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    place = next(parent for parent in Path(path).absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    return f"about {sum(stored.values()) / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free"
