"""Columns of numbers on disk: written once, mapped into memory, and never believed unchecked.

A store is a folder that appears whole (``columns.safetensors`` and ``manifest.json``). Opening it
reads neither file's bulk: sizes and versions are compared at once, and each block of rows is
checked against its checksum when it is first read. Nothing in it is ever unpickled.

Axes: N rows, I rows asked for.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from actionprior.errors import UserError
from actionprior.staging import appears_whole

FORMAT = 1
"""Goes up when what a store holds changes; stores of another format are made anew."""
BLOCK = 1 << 13
"""Rows under one checksum."""

AnyArray = npt.NDArray[Any]


class StoreError(UserError):
    """A store is damaged or of another format; the message names the file."""


class Column:
    """One column (N, …), indexed by rows as an array is, and read from disk as far as it is used.

    Worker processes that are sent one map the file again.

    Raises:
        StoreError: on access, where the bytes on disk are not those that were written.
    """

    def __init__(self, path: Path, name: str, array: AnyArray, checksums: list[int]) -> None:
        self.path, self.name = path, name
        self._array = array
        self._checksums = checksums
        self._good = np.zeros(len(checksums), dtype=np.bool_)
        self._entries: npt.NDArray[np.int64] | None = None

    def pick(self, entries: npt.NDArray[np.int64]) -> Self:
        """The same rows, of each only ``entries``, in that order."""
        picked = copy(self)
        if not np.array_equal(entries, np.arange(self._array.shape[1])):
            picked._entries = entries
        return picked

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: int | slice | npt.NDArray[np.int64]) -> Any:  # noqa: ANN401  as numpy's
        if not self._good.all():
            self._check(rows)
        found = self._array[rows]
        return found if self._entries is None else found[..., self._entries]

    def take(self, rows: npt.NDArray[np.int64], axis: int = 0) -> AnyArray:
        """As an array's: several times faster than an index."""
        if not self._good.all():
            self._check(rows)
        found: AnyArray = self._array.take(rows, axis)
        return found if self._entries is None else found[..., self._entries]

    def _check(self, rows: int | slice | npt.NDArray[np.int64]) -> None:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            blocks = np.arange(start // BLOCK, -(-stop // BLOCK))
        else:
            blocks = np.asarray(rows).reshape(-1) // BLOCK
        for block in np.unique(blocks[~self._good[blocks]]).tolist():
            first = block * BLOCK
            if _checksum(self._array[first : first + BLOCK]) != self._checksums[block]:
                last = min(first + BLOCK, len(self)) - 1
                raise StoreError(
                    f"{self.path}: rows {first} to {last} of {self.name!r} are not what was "
                    "written; delete the folder and run again, it is made anew from its source"
                )
            self._good[block] = True

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._array = _map(self.path)[self.name]


class Store(NamedTuple):
    """An open store: its columns, and what was told of them in plain data."""

    columns: dict[str, Column]
    about: dict[str, Any]


def write_store(folder: Path, columns: Mapping[str, AnyArray], about: Mapping[str, Any]) -> None:
    """Write a store at ``folder``, replacing what is there; it appears whole or not at all.

    Equal columns give equal bytes.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind then.
    """
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in columns.items()}
    with appears_whole(folder) as building:
        building.mkdir()
        path = building / "columns.safetensors"
        save_file(contiguous, path)
        body = {
            "format": FORMAT,
            "bytes": path.stat().st_size,
            "checksums": {name: _checksums(array) for name, array in contiguous.items()},
            "shapes": {name: list(array.shape) for name, array in contiguous.items()},
            "about": dict(about),
        }
        text = json.dumps(body, sort_keys=True)
        (building / "manifest.json").write_text(f"{_digest(text)}\n{text}\n")


def open_store(folder: Path) -> Store:
    """Map a store into memory.

    Raises:
        StoreError: missing, damaged, or of another format.
    """
    path, body = folder / "columns.safetensors", _read_manifest(folder / "manifest.json")
    if not path.is_file():
        raise StoreError(f"{path} is missing")
    if path.stat().st_size != body["bytes"]:
        raise StoreError(f"{path} has {path.stat().st_size} bytes, expected {body['bytes']}")
    arrays = _map(path)
    if {name: list(array.shape) for name, array in arrays.items()} != body["shapes"]:
        raise StoreError(f"{path} does not hold the columns that its manifest tells")
    columns = {
        name: Column(path, name, array, body["checksums"][name]) for name, array in arrays.items()
    }
    return Store(columns, body["about"])


def _map(path: Path) -> dict[str, AnyArray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names: list[str] = file.keys()  # it cannot be iterated itself
            # torch maps the file; numpy arrays from safetensors would be copies.
            return {name: file.get_tensor(name).numpy() for name in names}
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} cannot be read as safetensors ({error})") from None


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


def _checksums(array: AnyArray) -> list[int]:
    return [_checksum(array[first : first + BLOCK]) for first in range(0, len(array), BLOCK)]


def _checksum(rows: AnyArray) -> int:
    return zlib.crc32(memoryview(rows).cast("B")) if rows.size else 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
