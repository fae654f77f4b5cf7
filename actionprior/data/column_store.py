"""Columns of numbers on disk: written once, mapped into memory, and never believed unchecked.

A store is a folder that appears whole: a manifest, and a safetensors file a column. Opening it
reads none of their bulk: sizes and versions are compared at once, and each block of rows is
checked against its checksum when it is first read. Nothing in it is ever unpickled.

Axes: N rows of a column, I rows or runs of rows asked for.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from actionprior.errors import UserError
from actionprior.files.digest import digest
from actionprior.files.folders import atomic_folder

FORMAT = 3
"""Goes up when what a store holds changes; stores of another format are made anew."""
BLOCK = 1 << 10
"""Rows under one checksum."""
HEADER = 256
"""Bytes before a column's rows; a multiple of 8, so that they are aligned."""
MANIFEST = "manifest.json"

AnyArray = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Rows = int | slice | Indices


class StoreError(UserError):
    """A store is damaged or of another format; the message names the file."""


def consecutive(array: AnyArray, first_I: Indices, length: int) -> AnyArray:
    """Rows first, first + 1, … of a C-contiguous array (N, …): (I, length, …).

    Each run of rows is copied as one item: several times faster than row by row.

    Args:
        array: at least ``length`` rows.
        first_I: int64 (I,), each 0 … N - ``length``.
        length: rows of a run.
    """
    run = length * array[:1].nbytes
    if run == 0:
        return np.empty((len(first_I), length, *array.shape[1:]), array.dtype)
    # So many independent reads overlap their waits for memory; the copies below then find it near.
    array.reshape(-1).take(first_I * array[:1].size)
    step = array.strides[0]
    runs: AnyArray = np.ndarray(
        (len(array) - length + 1,), np.dtype((np.void, run)), array, 0, (step,)
    )
    return runs[first_I].view(array.dtype).reshape(len(first_I), length, *array.shape[1:])


class Column:
    """One column (N, …), indexed by rows as an array is, read from disk as far as it is used.

    Worker processes that are sent one map the file again.

    Args:
        path: its file.
        array: its rows, mapped.
        checksums: of each block of rows.

    Raises:
        StoreError: on access, where the bytes on disk are not those that were written.
    """

    def __init__(self, path: Path, array: AnyArray, checksums: list[int]) -> None:
        self.path = path
        self._array = array
        self._checksums = np.array(checksums, dtype=np.uint32)
        self._good = np.zeros(len(checksums), dtype=np.bool_)
        self._whole = False
        self._entries: slice | Indices = slice(None)

    def pick(self, entries: Indices) -> Self:
        """The same rows, of each only ``entries``, in that order."""
        picked = copy(self)
        picked._entries = entries
        if len(entries) and (np.diff(entries) == 1).all():
            picked._entries = slice(int(entries[0]), int(entries[-1]) + 1)  # no copy
        return picked

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Rows) -> Any:  # noqa: ANN401  as numpy's
        if isinstance(rows, np.ndarray):
            return self.take(rows)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                self._check(start, stop)
                return self._chosen(self._array[start:stop])
            return self.take(np.arange(start, stop, step))
        row = range(len(self))[rows]
        self._check(row, row + 1)
        return self._chosen(self._array[row])

    def take(self, rows: Indices, axis: int = 0) -> AnyArray:
        """As an array's, along the first axis; ``rows`` (I, …) must not be negative."""
        if axis:
            raise ValueError(f"a column is taken from along axis 0, not {axis}")
        if rows.size:
            self._check_blocks(rows.reshape(-1) // BLOCK)
        return self._chosen(self._array.take(rows, 0))

    def runs(self, first_I: Indices, length: int) -> AnyArray:
        """As ``consecutive``."""
        if len(first_I) and length and not self._whole:
            first_block_I, last_block_I = first_I // BLOCK, (first_I + length - 1) // BLOCK
            for more in range(int((last_block_I - first_block_I).max()) + 1):
                self._check_blocks(np.minimum(first_block_I + more, last_block_I))
        return self._chosen(consecutive(self._array, first_I, length))

    def _chosen(self, found: AnyArray) -> AnyArray:
        return found[..., self._entries] if found.ndim else found

    def _check(self, start: int, stop: int) -> None:
        if start < stop:
            self._check_blocks(np.arange(start // BLOCK, -(-stop // BLOCK)))

    def _check_blocks(self, blocks: Indices) -> None:
        if self._whole:
            return
        if blocks.max() >= len(self._good):
            raise IndexError(f"{self.path} has {len(self)} rows, asked for more")
        for block in np.unique(blocks[~self._good[blocks]]).tolist():
            rows = self._array[block * BLOCK : (block + 1) * BLOCK]
            if zlib.crc32(memoryview(rows).cast("B")) != self._checksums[block]:
                self._refuse(block * BLOCK, block * BLOCK + len(rows) - 1)
            self._good[block] = True
        self._whole = bool(self._good.all())

    def _refuse(self, start: int, last: int) -> None:
        # Without its manifest the store is not whole: what made it makes it anew.
        with suppress(OSError):
            (self.path.parent / MANIFEST).unlink()
        raise StoreError(
            f"{self.path}: rows {start} to {last} are not what was written; run again, the store "
            "is made anew from its source"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._array = _map(self.path)


class Store(NamedTuple):
    """An open store: its columns, and what was told of them in plain data."""

    columns: dict[str, Column]
    about: dict[str, Any]


class _ColumnFile:
    """A column's file as it grows, in the safetensors format: a header, then the rows."""

    def __init__(self, path: Path, file: BinaryIO, like: AnyArray) -> None:
        self.path = path
        self.rows = 0
        self.checksums: list[int] = []
        self._file = file
        self._dtype, self._shape = like.dtype, like.shape[1:]
        file.write(bytes(HEADER))

    def append(self, array: AnyArray) -> None:
        if (array.dtype, array.shape[1:]) != (self._dtype, self._shape):
            raise ValueError(
                f"{self.path.stem} holds {self._dtype} {self._shape}, "
                f"not {array.dtype} {array.shape[1:]}"
            )
        array = np.ascontiguousarray(array)
        first = 0
        while first < len(array):
            filled = self.rows % BLOCK
            part = array[first : first + BLOCK - filled]
            if filled == 0:
                self.checksums.append(0)
            content = memoryview(part).cast("B") if part.size else b""
            self.checksums[-1] = zlib.crc32(content, self.checksums[-1])
            self._file.write(content)
            first += len(part)
            self.rows += len(part)

    def finish(self) -> dict[str, Any]:
        """Write the header, and tell what the manifest says of the column."""
        shape = [self.rows, *self._shape]
        size = int(np.prod(shape)) * self._dtype.itemsize
        told = {"dtype": _NAMES[self._dtype.str], "shape": shape, "data_offsets": [0, size]}
        header = json.dumps({self.path.stem: told}).encode().ljust(HEADER - 8)
        self._file.seek(0)
        self._file.write((HEADER - 8).to_bytes(8, "little") + header)
        return {
            "bytes": HEADER + size,
            "holds": [self._dtype.str, *shape],
            "checksums": self.checksums,
        }


class StoreWriter:
    """Takes the rows of a new store and writes them on; it holds none.

    Attributes:
        about: plain data, kept beside the columns.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.about: dict[str, Any] = {}
        self._folder, self._stack = folder, stack
        self._files: dict[str, _ColumnFile] = {}

    def append(self, columns: Mapping[str, AnyArray]) -> None:
        """Add rows, equally many to each of ``columns``; others may come in later calls."""
        if len({len(array) for array in columns.values()}) > 1:
            raise ValueError("columns that are appended together need equally many rows")
        for name, array in columns.items():
            if name not in self._files:
                path = self._folder / f"{name}.safetensors"
                file = self._stack.enter_context(path.open("wb"))
                self._files[name] = _ColumnFile(path, file, array)
            self._files[name].append(array)

    def finish(self) -> None:
        """Write the headers and the manifest."""
        columns = {name: file.finish() for name, file in self._files.items()}
        self._stack.close()
        text = json.dumps(
            {"format": FORMAT, "columns": columns, "about": self.about}, sort_keys=True
        )
        (self._folder / MANIFEST).write_text(f"{digest(text)}\n{text}\n")


@contextmanager
def write_store(folder: Path) -> Iterator[StoreWriter]:
    """Write a store at ``folder``, replacing what is there; it appears whole or not at all.

    Equal rows give equal bytes, in however many parts they are appended.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind then.
    """
    with atomic_folder(folder) as building, ExitStack() as stack:
        building.mkdir()
        writer = StoreWriter(building, stack)
        yield writer
        writer.finish()


def open_store(folder: Path) -> Store:
    """Map a store into memory.

    Raises:
        StoreError: missing, damaged, or of another format.
    """
    body = _read_manifest(folder / MANIFEST)
    columns = {}
    for name, told in body["columns"].items():
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise StoreError(f"{path} is missing")
        if path.stat().st_size != told["bytes"]:
            raise StoreError(f"{path} has {path.stat().st_size} bytes, expected {told['bytes']}")
        array = _map(path)
        if [array.dtype.str, *array.shape] != told["holds"]:
            raise StoreError(f"{path} does not hold what its manifest tells")
        columns[name] = Column(path, array, told["checksums"])
    return Store(columns, body["about"])


def _map(path: Path) -> AnyArray:
    """The one array of a safetensors file, read-only.

    The library's own maps are private and writable: they count as memory of the process where the
    system limits that (``ulimit -d``, strict overcommit), although nobody writes to them.
    """
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(start - 8, path.stat().st_size)))
        told = header[path.stem]
        dtype, shape = _DTYPES[told["dtype"]], tuple(told["shape"])
        if 0 in shape:
            return np.empty(shape, dtype)
        mapped = np.memmap(path, dtype, "r", start, shape)
        return mapped.view(np.ndarray)  # several times faster to index
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} cannot be read as safetensors ({error!r})") from None


_NAMES = {"<f4": "F32", "<f8": "F64", "<i8": "I64"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        written, _, text = path.read_text().partition("\n")
        if written != digest(text.removesuffix("\n")):
            raise StoreError(f"{path} is not what was written")
        body: dict[str, Any] = json.loads(text)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error})") from None
    if body["format"] != FORMAT:
        raise StoreError(f"{path} is of format {body['format']}, expected {FORMAT}")
    return body
