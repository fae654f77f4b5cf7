"""Columns of numbers on disk: written once, memory-mapped, checksummed on first read.

A store is a folder with a manifest and one safetensors file per column. It appears complete or
not at all. Opening it compares sizes and versions and reads no rows; each block of rows is
checked against its checksum when it is first read. Nothing is ever unpickled.

Axes: N rows of a column, I requested rows or runs of rows.
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
"""Version of the format, raised when it changes; a store of another format is rebuilt."""
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
    """Copy runs of consecutive rows out of a C-contiguous array (N, …): (I, length, …).

    Each run of rows is copied as one item, several times faster than row by row.

    Args:
        array: Array of at least ``length`` rows.
        first_I: int64 (I,), first row of each run, 0 … N - ``length``.
        length: Number of rows in a run.
    """
    run = length * array[:1].nbytes
    if run == 0:
        return np.empty((len(first_I), length, *array.shape[1:]), array.dtype)
    # These independent reads wait for memory at the same time; the copies below then hit the cache.
    array.reshape(-1).take(first_I * array[:1].size)
    step = array.strides[0]
    runs: AnyArray = np.ndarray(
        (len(array) - length + 1,), np.dtype((np.void, run)), array, 0, (step,)
    )
    return runs[first_I].view(array.dtype).reshape(len(first_I), length, *array.shape[1:])


class Column:
    """One column (N, …), indexed by rows like an array; only the rows in use are read from disk.

    A worker process that receives one maps the file again.

    Args:
        path: File of the column.
        array: Memory-mapped rows.
        checksums: Checksum of each block of rows.

    Raises:
        StoreError: on access, if the bytes on disk are not those that were written.
    """

    def __init__(self, path: Path, array: AnyArray, checksums: list[int]) -> None:
        self.path = path
        self._array = array
        self._checksums = np.array(checksums, dtype=np.uint32)
        self._good = np.zeros(len(checksums), dtype=np.bool_)
        self._whole = False
        self._entries: slice | Indices = slice(None)

    def pick(self, entries: Indices) -> Self:
        """Restrict each row to ``entries``, in that order."""
        picked = copy(self)
        picked._entries = entries
        if len(entries) and (np.diff(entries) == 1).all():
            picked._entries = slice(int(entries[0]), int(entries[-1]) + 1)  # no copy
        return picked

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Rows) -> Any:  # noqa: ANN401  like NumPy
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
        """Take rows like ``numpy.take`` along axis 0; ``rows`` (I, …) must not be negative."""
        if axis:
            raise ValueError(f"axis is {axis}; rows of a column are taken along axis 0")
        if rows.size:
            self._check_blocks(rows.reshape(-1) // BLOCK)
        return self._chosen(self._array.take(rows, 0))

    def runs(self, first_I: Indices, length: int) -> AnyArray:
        """Copy runs of consecutive rows, as ``consecutive`` does."""
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
            raise IndexError(f"{self.path} has {len(self)} rows; a requested row is beyond them")
        for block in np.unique(blocks[~self._good[blocks]]).tolist():
            rows = self._array[block * BLOCK : (block + 1) * BLOCK]
            if zlib.crc32(memoryview(rows).cast("B")) != self._checksums[block]:
                self._refuse(block * BLOCK, block * BLOCK + len(rows) - 1)
            self._good[block] = True
        self._whole = bool(self._good.all())

    def _refuse(self, start: int, last: int) -> None:
        # A store without its manifest counts as missing, so that the next run rebuilds it.
        with suppress(OSError):
            (self.path.parent / MANIFEST).unlink()
        raise StoreError(
            f"{self.path}: rows {start} to {last} are not what was written; run again to rebuild "
            "the store from its source"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._array = _map(self.path)


class Store(NamedTuple):
    """An open store: its columns, and the plain data that describe them."""

    columns: dict[str, Column]
    about: dict[str, Any]


class _ColumnFile:
    """A growing column file in the safetensors format: a header, then the rows."""

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
        """Write the header and return the column's entry in the manifest."""
        shape = [self.rows, *self._shape]
        size = int(np.prod(shape)) * self._dtype.itemsize
        layout = {"dtype": _NAMES[self._dtype.str], "shape": shape, "data_offsets": [0, size]}
        header = json.dumps({self.path.stem: layout}).encode().ljust(HEADER - 8)
        self._file.seek(0)
        self._file.write((HEADER - 8).to_bytes(8, "little") + header)
        return {
            "bytes": HEADER + size,
            "holds": [self._dtype.str, *shape],
            "checksums": self.checksums,
        }


class StoreWriter:
    """Write the rows of a new store as they come, without keeping them in memory.

    Attributes:
        about: Plain data that are saved beside the columns.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.about: dict[str, Any] = {}
        self._folder, self._stack = folder, stack
        self._files: dict[str, _ColumnFile] = {}

    def append(self, columns: Mapping[str, AnyArray]) -> None:
        """Add equally many rows to each of ``columns``; later calls may add other columns."""
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
    """Write a store at ``folder`` atomically, replacing an existing one.

    Equal rows give equal bytes, regardless of the parts in which they are appended.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    with atomic_folder(folder) as building, ExitStack() as stack:
        building.mkdir()
        writer = StoreWriter(building, stack)
        yield writer
        writer.finish()


def open_store(folder: Path) -> Store:
    """Map a store into memory.

    Raises:
        StoreError: the store is missing, damaged, or of another format.
    """
    body = _read_manifest(folder / MANIFEST)
    columns = {}
    for name, entry in body["columns"].items():
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise StoreError(f"{path} is missing")
        if path.stat().st_size != entry["bytes"]:
            raise StoreError(f"{path} has {path.stat().st_size} bytes, expected {entry['bytes']}")
        array = _map(path)
        if [array.dtype.str, *array.shape] != entry["holds"]:
            raise StoreError(f"{path} does not hold what its manifest says")
        columns[name] = Column(path, array, entry["checksums"])
    return Store(columns, body["about"])


def _map(path: Path) -> AnyArray:
    """Map the one array of a safetensors file, read-only.

    The library's own maps are private and writable. They count as memory of the process where the
    system limits that (``ulimit -d``, strict overcommit), although nothing writes to them.
    """
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(start - 8, path.stat().st_size)))
        layout = header[path.stem]
        dtype, shape = _DTYPES[layout["dtype"]], tuple(layout["shape"])
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
