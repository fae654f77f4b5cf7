"""Checkpoints that are folders, to which each process writes its own shards.

- ``rest.pt``: the checkpoint as Lightning makes it; sharded tensors are meta tensors, which have
  only a shape.
- ``shard-<rank>-of-<ranks>.safetensors``: the rows of the sharded tensors.
- ``index.json``, written last: the digest of every file.

Torch's own sharded format keeps its index in a pickle. Its safetensors format holds only tensors
and does not check content.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.utils._pytree import (
    KeyPath,
    keystr,
    tree_flatten_with_path,
    tree_map,
    tree_map_with_path,
)

from actionprior.checkpoints import keys
from actionprior.checkpoints.atomic import disk_errors_explained
from actionprior.checkpoints.formats import FORMAT, check_checkpoint_format, check_format
from actionprior.checkpoints.reading import (
    INDEX,
    CheckpointError,
    other_folder,
    read_checkpoint,
    read_local,
    require_lightning,
)
from actionprior.checkpoints.shards import (
    all_gather,
    as_dtensor,
    on_all_ranks,
    opened_rows,
    share,
    write_rows,
)
from actionprior.errors import shorten
from actionprior.files.atomic import atomic_replace, sync
from actionprior.files.digest import file_digest
from actionprior.files.plain_json import read_json

REST = "rest.pt"
_NAMES = re.compile(r"rest\.pt|shard-\d+-of-\d+\.safetensors")


class IndexEntry(NamedTuple):
    """Size and digest of a file, as the index holds them."""

    bytes: int
    sha256: str


def save_sharded(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write ``checkpoint`` as the folder ``path``, atomically; call it on every rank.

    Args:
        checkpoint: This process's checkpoint. Its DTensors are sharded by rows; everything else
            is taken from rank 0.
        path: Folder on a disk that all processes share; rank 0's is used.

    Raises:
        CheckpointError: on every rank, if on any of them the disk is full, not writable or not
            shared.
    """
    target = Path(path)
    new = target.with_name(f".{uuid4().hex[:8]}.part")
    target, new = all_gather((target, new))[0]
    first = distributed.get_rank() == 0
    try:
        written = on_all_ranks(lambda: _write_own_files(checkpoint, new, target))
        files = {name: file for of_rank in written for name, file in of_rank.items()}
        on_all_ranks(lambda: _finish(new, files, target) if first else None)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # every rank has one if the disk is not shared


def _write_own_files(
    checkpoint: dict[str, Any], folder: Path, target: Path
) -> dict[str, IndexEntry]:
    """Write this process's files; return their index entries."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    leaves = tree_flatten_with_path(checkpoint)[0]
    sharded = {keystr(place): leaf for place, leaf in leaves if isinstance(leaf, DTensor)}
    file = folder / f"shard-{rank}-of-{ranks}.safetensors"
    with disk_errors_explained([leaf.to_local() for leaf in sharded.values()], target):
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(sharded, file, target)
        sync(file)
    files = [file]
    if rank == 0:
        rest = tree_map(_outline, checkpoint)
        with disk_errors_explained(rest, target):
            torch.save(rest, folder / REST)
            sync(folder / REST)
        files.append(folder / REST)
    return {f.name: IndexEntry(f.stat().st_size, file_digest(f)) for f in files}


def _finish(folder: Path, files: dict[str, IndexEntry], target: Path) -> None:
    """Write the index and rename the folder to its final name."""
    for name, written in files.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != written.bytes:
            raise CheckpointError(
                f"checkpoint {target} cannot be saved: {name} of another process is not visible "
                "here; sharded checkpoints need a disk that all nodes share"
            )
    index = {keys.FORMAT: FORMAT, "files": {name: files[name]._asdict() for name in sorted(files)}}
    with disk_errors_explained(index, target):
        (folder / INDEX).write_text(json.dumps(index, indent=1), "utf-8")
        sync(folder / INDEX)
        sync(folder)
        atomic_replace(folder, target)


class ShardedCheckpoint:
    """A sharded checkpoint, which any number of processes can read."""

    def __init__(self, path: str | Path) -> None:
        """Read the index.

        Raises:
            CheckpointError: the index is missing or damaged.
            FormatError: a version with another format wrote it.
        """
        self.path = Path(path)
        self.files = self._read_index()

    def verify(self, rank: int = 0, ranks: int = 1) -> None:
        """Compare this process's share of the files with their digests.

        Args:
            rank: Rank of this process.
            ranks: Number of processes that share the work.

        Raises:
            CheckpointError: a file is missing, cut short or changed.
        """
        for name in sorted(self.files)[rank::ranks]:
            self._verify(name)

    def outline(self) -> dict[str, Any]:
        """Read the checkpoint with meta tensors in place of sharded ones.

        Raises:
            CheckpointError: damaged, or ``rest.pt`` holds more than tensors and plain data.
        """
        return self._rest()

    def full_checkpoint(self, moments: bool = True) -> dict[str, Any]:
        """Read the checkpoint with full tensors on the CPU, and verify every file.

        Args:
            moments: Read the optimisers' states, too; False: they stay meta tensors.

        Raises:
            CheckpointError: damaged, or the shards do not add up to the tensors.
        """
        self.verify()
        rest = self._rest()
        states = {} if moments else {keys.OPTIMIZERS: rest.pop(keys.OPTIMIZERS, [])}
        return {**self._filled(rest, None), **states}

    def shares(self, mesh: DeviceMesh) -> dict[str, Any]:
        """Read the checkpoint with DTensors over ``mesh``: only this process's rows, unverified.

        Raises:
            CheckpointError: as ``full_checkpoint``.
        """
        return self._filled(self._rest(), mesh)

    def _read_index(self) -> dict[str, IndexEntry]:
        if not self.path.exists():
            raise CheckpointError(f"checkpoint {self.path} does not exist")
        if not (self.path / INDEX).is_file():
            raise CheckpointError(
                other_folder(self.path)
                or f"checkpoint {self.path} has no {INDEX}: it is incomplete, or ShardedStrategy "
                "did not write it"
            )
        try:
            index = read_json(self.path / INDEX)
            known, found = index["files"].items(), index[keys.FORMAT]
            files = {name: IndexEntry(int(f["bytes"]), str(f["sha256"])) for name, f in known}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"checkpoint {self.path} is damaged: {INDEX} cannot be read ({shorten(error)})"
            ) from error
        check_format(found, self.path)
        other = [name for name in files if not _NAMES.fullmatch(name)]
        if other or REST not in files:
            what = f"lists {other[0]!r}" if other else f"lists no {REST}"
            raise CheckpointError(f"checkpoint {self.path} is damaged: {INDEX} {what}")
        return files

    def _verify(self, name: str) -> None:
        file, expected = self.path / name, self.files[name]
        if not file.is_file():
            raise CheckpointError(f"checkpoint {self.path} is incomplete: {name} is missing")
        if file.stat().st_size != expected.bytes or file_digest(file) != expected.sha256:
            raise CheckpointError(
                f"checkpoint {self.path} is damaged: {name} is not what was written"
            )

    def _rest(self) -> dict[str, Any]:
        self._verify(REST)
        rest = read_local(self.path / REST)
        require_lightning(rest, self.path / REST)
        check_checkpoint_format(rest, self.path)
        return rest

    def _filled(self, rest: dict[str, Any], mesh: DeviceMesh | None) -> dict[str, Any]:
        """Replace the meta tensors of ``rest`` by tensors, or by DTensors over ``mesh``."""
        shards = [self.path / name for name in sorted(set(self.files) - {REST})]
        with opened_rows(shards, self.path) as rows:

            def fill(place: KeyPath, leaf: object) -> object:
                if not isinstance(leaf, Tensor) or not leaf.is_meta:
                    return leaf
                if mesh is None:
                    return rows(keystr(place), leaf, 0, leaf.shape[0])
                count, start = share(leaf.shape[0], mesh)
                return as_dtensor(rows(keystr(place), leaf, start, start + count), leaf, mesh)

            checkpoint: dict[str, Any] = tree_map_with_path(fill, rest)
        return checkpoint


def read_file_or_folder(path: str | Path, weights: bool = True) -> dict[str, Any]:
    """Read a checkpoint that is a file or a folder; a folder's optimiser states stay meta tensors.

    Args:
        path: Checkpoint file, or folder of shards.
        weights: Read a folder's shards; False: its weights stay meta tensors, too.

    Raises:
        CheckpointError: as ``read_checkpoint`` and ``ShardedCheckpoint``.
        FormatError: a version with another format wrote it.
    """
    if not Path(path).is_dir():
        return read_checkpoint(path)
    folder = ShardedCheckpoint(path)
    return folder.full_checkpoint(moments=False) if weights else folder.outline()


def _outline(leaf: object) -> object:
    if isinstance(leaf, DTensor):
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
    return leaf
