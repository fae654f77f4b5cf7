"""Checkpoints that are folders: each process writes the shards that it has, and none gathers them.

``rest.pt`` is the checkpoint as Lightning makes it, with the shapes alone of what is sharded
(torch's meta tensors); ``shard-<rank>-of-<ranks>.safetensors`` have the rows of these, and
``index.json``, which is written last, has the digest of every file. Torch's own sharded format
keeps its index in a pickle, and its safetensors format holds tensors alone and checks no content.
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

from actionprior.checkpoints.atomic import disk_faults_told
from actionprior.checkpoints.formats import FORMAT, KEY, migrate
from actionprior.checkpoints.reading import (
    INDEX,
    CheckpointError,
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
from actionprior.files.atomic import atomic_replace, sync
from actionprior.files.digest import file_digest

REST = "rest.pt"
_NAMES = re.compile(r"rest\.pt|shard-\d+-of-\d+\.safetensors")


class Written(NamedTuple):
    """What the index knows of a file."""

    bytes: int
    sha256: str


def save_sharded(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write ``checkpoint`` as the folder ``path``, whole or not at all; all processes must ask.

    Args:
        checkpoint: this process's; its DTensors are sharded by rows, all else is rank 0's.
        path: rank 0's; on a disk that all processes share.

    Raises:
        CheckpointError: on all processes, if on any the disk is full, nothing may be written
            there, or it is not shared.
    """
    target = Path(path)
    new = target.with_name(f".{uuid4().hex[:8]}.part")
    target, new = all_gather((target, new))[0]
    first = distributed.get_rank() == 0
    try:
        written = on_all_ranks(lambda: _write_mine(checkpoint, new, target))
        files = {name: file for of_rank in written for name, file in of_rank.items()}
        on_all_ranks(lambda: _finish(new, files, target) if first else None)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # by each: where the disk is not shared, it has one


def _write_mine(checkpoint: dict[str, Any], folder: Path, told: Path) -> dict[str, Written]:
    """Write this process's files; gives what the index is to know of them."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    leaves = tree_flatten_with_path(checkpoint)[0]
    sharded = {keystr(place): leaf for place, leaf in leaves if isinstance(leaf, DTensor)}
    file = folder / f"shard-{rank}-of-{ranks}.safetensors"
    with disk_faults_told([leaf.to_local() for leaf in sharded.values()], told):
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(sharded, file, told)
        sync(file)
    files = [file]
    if rank == 0:
        rest = tree_map(_outline, checkpoint)
        with disk_faults_told(rest, told):
            torch.save(rest, folder / REST)
            sync(folder / REST)
        files.append(folder / REST)
    return {f.name: Written(f.stat().st_size, file_digest(f)) for f in files}


def _finish(folder: Path, files: dict[str, Written], target: Path) -> None:
    """Write the index and give the folder its name."""
    for name, written in files.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != written.bytes:
            raise CheckpointError(
                f"checkpoint {target} cannot be saved: {name} of another process is not to be seen "
                "here; sharded checkpoints need a disk that all nodes share"
            )
    index = {KEY: FORMAT, "files": {name: files[name]._asdict() for name in sorted(files)}}
    with disk_faults_told(index, target):
        (folder / INDEX).write_text(json.dumps(index, indent=1), "utf-8")
        sync(folder / INDEX)
        sync(folder)
        atomic_replace(folder, target)


class ShardedCheckpoint:
    """A folder of shards, to be read on any number of processes."""

    def __init__(self, path: str | Path) -> None:
        """Read the index.

        Raises:
            CheckpointError: there is none, or it is damaged.
            FormatError: a newer version wrote it.
        """
        self.path = Path(path)
        self.files = self._read_index()

    def verify(self, rank: int = 0, ranks: int = 1) -> None:
        """Compare each of this process's share of all files with its digest.

        Raises:
            CheckpointError: one is missing, cut short or changed.
        """
        for name in sorted(self.files)[rank::ranks]:
            self._verify(name)

    def outline(self) -> dict[str, Any]:
        """The checkpoint with meta tensors for what is sharded.

        Raises:
            CheckpointError: damaged, or with more than tensors and plain data in ``rest.pt``.
        """
        rest = self._rest()
        migrate(rest, self.path)
        return rest

    def full_checkpoint(self, moments: bool = True) -> dict[str, Any]:
        """The checkpoint with whole tensors on the CPU, every file of it verified.

        Args:
            moments: False: what the optimisers keep stays meta tensors.

        Raises:
            CheckpointError: damaged, or shards that do not make up the tensors.
        """
        self.verify()
        rest = self._rest()
        states = {} if moments else {"optimizer_states": rest.pop("optimizer_states", [])}
        return {**self._filled(rest, None), **states}

    def shares(self, mesh: DeviceMesh) -> dict[str, Any]:
        """The checkpoint with DTensors of which this process reads its rows alone; not verified.

        Raises:
            CheckpointError: as ``whole``.
        """
        return self._filled(self._rest(), mesh)

    def _read_index(self) -> dict[str, Written]:
        if not self.path.exists():
            raise CheckpointError(f"checkpoint {self.path} does not exist")
        if not (self.path / INDEX).is_file():
            raise CheckpointError(
                f"checkpoint {self.path} has no {INDEX}: ShardedStrategy did not write it whole"
            )
        try:
            index = json.loads((self.path / INDEX).read_text("utf-8"))
            known = index["files"].items()
            files = {name: Written(int(f["bytes"]), str(f["sha256"])) for name, f in known}
            if index[KEY] < 2:
                raise ValueError(f"{KEY} is {index[KEY]}")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"checkpoint {self.path} is damaged: {INDEX} cannot be read ({error})"
            ) from error
        migrate(index, self.path)
        other = [name for name in files if not _NAMES.fullmatch(name)]
        if other or REST not in files:
            told = f"lists {other[0]!r}" if other else f"lists no {REST}"
            raise CheckpointError(f"checkpoint {self.path} is damaged: {INDEX} {told}")
        return files

    def _verify(self, name: str) -> None:
        file, expected = self.path / name, self.files[name]
        if not file.is_file():
            raise CheckpointError(f"checkpoint {self.path} is not whole: {name} is missing")
        if file.stat().st_size != expected.bytes or file_digest(file) != expected.sha256:
            raise CheckpointError(
                f"checkpoint {self.path} is damaged: {name} is not what was written"
            )

    def _rest(self) -> dict[str, Any]:
        self._verify(REST)
        rest = read_local(self.path / REST)
        require_lightning(rest, self.path / REST)
        return rest

    def _filled(self, rest: dict[str, Any], mesh: DeviceMesh | None) -> dict[str, Any]:
        """``rest`` with tensors, or with DTensors over ``mesh``, for its meta tensors."""
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
        migrate(checkpoint, self.path)
        return checkpoint


def read_either(path: str | Path, weights: bool = True) -> dict[str, Any]:
    """A checkpoint file, or a folder without moments; without ``weights`` none of its shards.

    Raises:
        CheckpointError: as ``read_checkpoint`` and ``ShardedCheckpoint``.
        FormatError: a newer version wrote it.
    """
    if not Path(path).is_dir():
        return read_checkpoint(path)
    folder = ShardedCheckpoint(path)
    return folder.full_checkpoint(moments=False) if weights else folder.outline()


def _outline(leaf: object) -> object:
    if isinstance(leaf, DTensor):
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
    return leaf
