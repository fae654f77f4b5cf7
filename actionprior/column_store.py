"""Columns of numbers on disk: written once, mapped into memory, and never believed unchecked.

A store is a folder that appears whole: a manifest, and shards of bounded size. Opening it reads
none of their bulk: sizes and versions are compared at once, and each block of rows is checked
against its checksum when it is first read. Nothing in it is ever unpickled.

Axes: N rows of a column, I rows asked for, K shards.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from actionprior.errors import UserError
from actionprior.staging import appears_whole

FORMAT = 2
"""Goes up when what a store holds changes; stores of another format are made anew."""
BLOCK = 1 << 13
"""Rows under one checksum."""
SHARD = 1 << 29
"""Bytes of rows in one shard, at most."""
MANIFEST = "manifest.json"

AnyArray = npt.NDArray[Any]
Rows = int | slice | npt.NDArray[np.int64]


class StoreError(UserError):
    """A store is damaged or of another format; the message names the file."""


class Piece:
    """The rows of a column that are in one shard, read from disk as far as they are used.

    Args:
        path: the shard's file.
        name: of the column.
        array: its rows, mapped.
        checksums: of each block of rows.
        first: the first row's number in the whole column.
    """

    def __init__(
        self, path: Path, name: str, array: AnyArray, checksums: list[int], first: int
    ) -> None:
        self.path, self.name, self.first = path, name, first
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array
        self._checksums = checksums
        self._good = np.zeros(len(checksums), dtype=np.bool_)
        self._whole = False

    def at(self, rows: Rows) -> AnyArray:
        """The array's own rows, a view where NumPy gives one.

        Raises:
            StoreError: the bytes on disk are not those that were written.
        """
        if not self._whole:
            self._check(rows)
        # Several times faster than an index.
        found: AnyArray = (
            self._array.take(rows, 0) if isinstance(rows, np.ndarray) else self._array[rows]
        )
        return found

    def _check(self, rows: Rows) -> None:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self._array))
            blocks = np.arange(start // BLOCK, -(-stop // BLOCK))
        else:
            blocks = np.asarray(rows).reshape(-1) // BLOCK
        for block in np.unique(blocks[~self._good[blocks]]).tolist():
            start = block * BLOCK
            if _checksum(self._array[start : start + BLOCK]) != self._checksums[block]:
                self._refuse(start, min(start + BLOCK, len(self._array)) - 1)
            self._good[block] = True
        self._whole = bool(self._good.all())

    def _refuse(self, start: int, last: int) -> None:
        # Without its manifest the store is not whole: what made it makes it anew.
        with suppress(OSError):
            (self.path.parent / MANIFEST).unlink()
        raise StoreError(
            f"{self.path}: rows {self.first + start} to {self.first + last} of {self.name!r} are "
            "not what was written; run again, the store is made anew from its source"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._array = _map(self.path)[self.name]


class Column:
    """One column (N, …), indexed by rows as an array is, over all shards that have a part of it.

    Worker processes that are sent one map the files again.

    Raises:
        StoreError: on access, where the bytes on disk are not those that were written.
    """

    def __init__(self, pieces: list[Piece], length: int) -> None:
        self._pieces = pieces
        self._first_K = np.array([piece.first for piece in pieces], dtype=np.int64)
        self._size_K = np.array([piece.shape[0] for piece in pieces], dtype=np.uint64)
        self._length = length
        self._entries: slice | npt.NDArray[np.int64] = slice(None)

    def pick(self, entries: npt.NDArray[np.int64]) -> Self:
        """The same rows, of each only ``entries``, in that order."""
        picked = copy(self)
        picked._entries = entries
        if len(entries) and (np.diff(entries) == 1).all():
            picked._entries = slice(int(entries[0]), int(entries[-1]) + 1)  # no copy
        return picked

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: Rows) -> Any:  # noqa: ANN401  as numpy's
        if isinstance(rows, np.ndarray):
            return self.take(rows)
        if not isinstance(rows, slice):
            row = range(self._length)[rows]
            piece = self._pieces[int(np.searchsorted(self._first_K, row, side="right")) - 1]
            return self._chosen(piece.at(row - piece.first))
        start, stop, step = rows.indices(self._length)
        if step != 1:
            return self.take(np.arange(start, stop, step))
        stop_K = [*self._first_K[1:].tolist(), self._length]
        parts = [
            piece.at(slice(max(start - piece.first, 0), max(min(stop, end) - piece.first, 0)))
            for piece, end in zip(self._pieces, stop_K, strict=True)
            if piece.first < stop and start < end
        ] or [self._pieces[0].at(slice(0, 0))]
        return self._chosen(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def take(self, rows: npt.NDArray[np.int64], axis: int = 0) -> AnyArray:
        """As an array's, along the first axis; ``rows`` (I, …) must not be negative."""
        if axis:
            raise ValueError(f"a column is taken from along axis 0, not {axis}")
        one = len(self._pieces) == 1
        return self._chosen(self._pieces[0].at(rows) if one else self._over_shards(rows))

    def _chosen(self, found: AnyArray) -> AnyArray:
        return found[..., self._entries] if found.ndim else found

    def _over_shards(self, rows: npt.NDArray[np.int64]) -> AnyArray:
        """Shard by shard: a window of rows mostly lies within one."""
        if rows.size == 0:
            return self._pieces[0].at(rows)
        rows_IJ = rows.reshape(len(rows), -1)
        shard_I = np.searchsorted(self._first_K, rows_IJ[:, 0], side="right") - 1
        local_IJ = rows_IJ - self._first_K[shard_I][:, None]
        # As an unsigned number what is below zero is too large, too.
        beyond_IJ = local_IJ.view(np.uint64) >= self._size_K[shard_I][:, None]
        across = np.flatnonzero(beyond_IJ.any(1))
        if len(across):
            if rows_IJ.shape[1] == 1:
                raise IndexError(f"{rows_IJ[across[0], 0]} is no row of {self._length}")
            local_IJ[across] = local_IJ[across, :1]  # their other rows come at the end
        order_I = np.argsort(shard_I, kind="stable")
        local_IJ = local_IJ.take(order_I, 0)
        stop_K = np.cumsum(np.bincount(shard_I, minlength=len(self._pieces))).tolist()
        found = np.empty((*rows_IJ.shape, *self._pieces[0].shape[1:]), self._pieces[0].dtype)
        for piece, start, stop in zip(self._pieces, [0, *stop_K[:-1]], stop_K, strict=True):
            if start < stop:
                found[order_I[start:stop]] = piece.at(local_IJ[start:stop])
        if len(across):
            found[across] = self._over_shards(rows_IJ[across].reshape(-1, 1)).reshape(
                len(across), *found.shape[1:]
            )
        return found.reshape(*rows.shape, *found.shape[2:])


class Store(NamedTuple):
    """An open store: its columns, and what was told of them in plain data."""

    columns: dict[str, Column]
    about: dict[str, Any]


class StoreWriter:
    """Takes the rows of a new store and holds no more of them than one shard.

    Attributes:
        about: plain data, kept beside the columns.
    """

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = {}
        self._folder = folder
        self._shards: list[dict[str, Any]] = []
        self._waiting: dict[str, list[AnyArray]] = {}
        self._room = SHARD

    def append(self, columns: Mapping[str, AnyArray]) -> None:
        """Add rows, equally many to each of ``columns``; others may come in later calls."""
        rows = len(next(iter(columns.values())))
        if any(len(array) != rows for array in columns.values()):
            raise ValueError("columns that are appended together need equally many rows")
        width = max(1, sum(array[:1].nbytes for array in columns.values()))
        start = 0
        while start < rows:
            if self._room < width and self._waiting:
                self._flush()
            stop = min(rows, start + max(1, self._room // width))
            for name, array in columns.items():
                self._waiting.setdefault(name, []).append(array[start:stop].copy())
            self._room -= (stop - start) * width
            start = stop

    def finish(self) -> None:
        """Write what is left, and the manifest."""
        self._flush()
        body = {"format": FORMAT, "shards": self._shards, "about": self.about}
        text = json.dumps(body, sort_keys=True)
        (self._folder / MANIFEST).write_text(f"{_digest(text)}\n{text}\n")

    def _flush(self) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        path = self._folder / f"columns-{len(self._shards):05d}.safetensors"
        # One column at a time: its parts are freed before the next is joined.
        columns = {name: np.concatenate(self._waiting.pop(name)) for name in [*self._waiting]}
        try:
            save_file(columns, path)
        except SafetensorError as error:
            raise OSError(f"{path.name} cannot be written: {error}") from error
        self._shards.append(
            {
                "file": path.name,
                "bytes": path.stat().st_size,
                "columns": {
                    name: {"holds": _holds(array), "checksums": _checksums(array)}
                    for name, array in columns.items()
                },
            }
        )
        self._room = SHARD


@contextmanager
def write_store(folder: Path) -> Iterator[StoreWriter]:
    """Write a store at ``folder``, replacing what is there; it appears whole or not at all.

    Equal rows give equal bytes, in however many parts they are appended.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind then.
    """
    with appears_whole(folder) as building:
        building.mkdir()
        writer = StoreWriter(building)
        yield writer
        writer.finish()


def open_store(folder: Path) -> Store:
    """Map a store into memory.

    Raises:
        StoreError: missing, damaged, or of another format.
    """
    body = _read_manifest(folder / MANIFEST)
    pieces: dict[str, list[Piece]] = {}
    lengths: dict[str, int] = {}
    for shard in body["shards"]:
        path, told = folder / shard["file"], shard["columns"]
        if not path.is_file():
            raise StoreError(f"{path} is missing")
        if path.stat().st_size != shard["bytes"]:
            raise StoreError(f"{path} has {path.stat().st_size} bytes, expected {shard['bytes']}")
        arrays = _map(path)
        if {n: _holds(a) for n, a in arrays.items()} != {n: t["holds"] for n, t in told.items()}:
            raise StoreError(f"{path} does not hold the columns that its manifest tells")
        for name, array in arrays.items():
            first = lengths.get(name, 0)
            piece = Piece(path, name, array, told[name]["checksums"], first)
            pieces.setdefault(name, []).append(piece)
            lengths[name] = first + len(array)
    columns = {name: Column(parts, lengths[name]) for name, parts in pieces.items()}
    return Store(columns, body["about"])


def _map(path: Path) -> dict[str, AnyArray]:
    """A safetensors file's arrays, read-only.

    The library's own maps are private and writable: they count as memory of the process where the
    system limits that (``ulimit -d``, strict overcommit), although nobody writes to them.
    """
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(start - 8, path.stat().st_size)))
        arrays: dict[str, AnyArray] = {}
        for name, told in header.items():
            dtype, offset = _DTYPES[told["dtype"]], start + told["data_offsets"][0]
            mapped = np.memmap(path, dtype, "r", offset, tuple(told["shape"]))
            arrays[name] = mapped.view(np.ndarray)  # several times faster to index
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} cannot be read as safetensors ({error!r})") from None
    return arrays


_DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        digest, _, text = path.read_text().partition("\n")
        if digest != _digest(text.removesuffix("\n")):
            raise StoreError(f"{path} is not what was written")
        body: dict[str, Any] = json.loads(text)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error})") from None
    if body["format"] != FORMAT:
        raise StoreError(f"{path} is of format {body['format']}, expected {FORMAT}")
    return body


def _holds(array: AnyArray) -> list[Any]:
    return [array.dtype.name, *array.shape]


def _checksums(array: AnyArray) -> list[int]:
    return [_checksum(array[first : first + BLOCK]) for first in range(0, len(array), BLOCK)]


def _checksum(rows: AnyArray) -> int:
    return zlib.crc32(memoryview(rows).cast("B")) if rows.size else 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
