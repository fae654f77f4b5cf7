"""Cache arrays on disk, with a size limit, for several processes at once.

A file holds one episode of one camera as a ``.npy`` array with one row per frame, followed by a
checksum of each row. Files are written atomically, and a row is checked on its first read. When
the limit is reached, the least recently used files are deleted.
"""

import math
import os
import zlib
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, suppress
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from torch import Tensor

from actionprior.data import DataError
from actionprior.files.atomic import atomic_replace

ImageArray = npt.NDArray[np.uint8]
Rows = npt.NDArray[Any]
Shape = tuple[int, ...]
BYTE = np.dtype(np.uint8)
WRITE_LOCKS = 64
"""Number of locks that writers share. Files of one lock are written one after the other."""
UNFINISHED = ".part"


class WriteOutcome(Enum):
    """Result of an attempt to write a file."""

    PRESENT = "the file is in the cache"
    BUSY = "another process is writing the file"
    NO_ROOM = "the limit leaves no room for the file"


class ArrayCache:
    """Folder of arrays of one type, one file per episode and camera.

    Args:
        folder: Folder that holds only this cache.
        limit: Largest total size of all files, including unfinished ones [bytes]. None for no
            limit.
        dtype: Type of the arrays' numbers.
        contents: What the arrays hold, for messages.
        limit_name: Setting of the limit, for messages.
    """

    def __init__(
        self,
        folder: Path,
        limit: int | None = None,
        dtype: np.dtype[Any] = BYTE,
        contents: str = "decoded images",
        limit_name: str = "cache_gb",
    ) -> None:
        self.folder = folder
        self.limit = limit
        self.dtype = dtype
        self.contents = contents
        self.limit_name = limit_name

    @property
    def writable(self) -> bool:
        """True if this process may create files in the folder, or the folder itself."""
        places = (self.folder, *self.folder.parents)
        return os.access(next(place for place in places if place.exists()), os.W_OK)

    def size(self, shape: Shape) -> int:
        """Return the size of a complete file [bytes]."""
        return file_size(shape, self.dtype)

    def has(self, path: Path, shape: Shape) -> bool:
        """Return whether a file exists and has the size of a complete one."""
        try:
            return path.stat().st_size == self.size(shape)
        except OSError:
            return False

    def open(self, path: Path, shape: Shape) -> "CachedRows | None":
        """Memory-map a file. Return None if it is missing or incomplete.

        Raises:
            DataError: The file cannot be opened.
        """
        try:
            found = CachedRows(path, shape, self.dtype) if self.has(path, shape) else None
        except FileNotFoundError:  # another process deleted it after the check
            return None
        except OSError as error:
            raise DataError(
                f"{path}: the {self.contents} cannot be opened ({error}); `ulimit -n` says how "
                "many files a process may open"
            ) from error
        if found is not None:
            with suppress(OSError):  # the cache may be another user's and read-only
                os.utime(path)
        return found

    def available_bytes(self, keep: Collection[Path]) -> float:
        """Return the number of bytes that can be written without deleting one of ``keep``."""
        if self.limit is None:
            return math.inf
        return self.limit - sum(f.size for f in self._files() if f.unfinished or f.path in keep)

    def clean_up(self, keep: Collection[Path]) -> None:
        """Delete files of killed writers, and old files above the limit, ``keep`` last.

        Raises:
            DataError: The folder is not writable.
        """
        try:
            for file in self._files():
                if file.unfinished:
                    with suppress(Timeout), self._write_lock(file.path, wait=False):
                        file.path.unlink(missing_ok=True)
            if self.limit is not None:
                with self._lock("room"):
                    self._make_room(0, keep, even_kept=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def write(
        self,
        path: Path,
        shape: Shape,
        rows: Callable[[], Iterable[Tensor]],
        keep: Collection[Path],
        wait: bool,
    ) -> WriteOutcome:
        """Write a file atomically, unless it exists.

        Args:
            path: File to write.
            shape: Shape of its array.
            rows: Function that yields the array's rows in chunks (N, ...).
            keep: Files that must not be deleted to make room.
            wait: Wait for another process that is writing a file of the same lock.

        Raises:
            DataError: The disk is full or not writable, or ``rows`` raises it.
        """
        part = path.with_name(f".{path.name}{UNFINISHED}")
        try:
            with self._write_lock(part, wait):
                if self.has(path, shape):
                    return WriteOutcome.PRESENT
                try:
                    if not self._reserve(path, part, self.size(shape), keep):
                        return WriteOutcome.NO_ROOM
                    with part.open("r+b") as file:
                        _write(file, shape, self.dtype, rows())
                    atomic_replace(part, path)
                finally:
                    part.unlink(missing_ok=True)
        except Timeout:
            return WriteOutcome.BUSY
        except OSError as error:
            raise self._not_writable(error) from error
        return WriteOutcome.PRESENT

    # ---- parts --------------------------------------------------------------------------------

    def _reserve(self, path: Path, part: Path, size: int, keep: Collection[Path]) -> bool:
        """Create ``part`` at its final size, so that all processes count it towards the limit."""
        with self._lock("room"):
            path.unlink(missing_ok=True)  # an existing file is incomplete here
            if not self._make_room(size, keep):
                return False
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.truncate(size)
        return True

    def _make_room(self, size: int, keep: Collection[Path], *, even_kept: bool = False) -> bool:
        """Delete the least recently used files until ``size`` more bytes fit, if possible."""
        if self.limit is None:
            return True
        files = self._files()
        excess = sum(f.size for f in files) + size - self.limit
        spare = [f for f in files if not f.unfinished and (even_kept or f.path not in keep)]
        if excess > sum(f.size for f in spare):
            return False
        for file in sorted(spare, key=lambda f: (f.path in keep, f.used)):
            if excess <= 0:
                break
            file.path.unlink(missing_ok=True)
            excess -= file.size
        return True

    def _files(self) -> list["_CacheFile"]:
        found = []
        for path in self.folder.rglob("*"):
            if path.suffix in (".npy", UNFINISHED):
                with suppress(FileNotFoundError):  # another process may rename or delete it
                    stat = path.stat()
                    found.append(_CacheFile(path, stat.st_size, stat.st_mtime))
        return found

    def _write_lock(self, part: Path, wait: bool) -> AbstractContextManager[object]:
        """Return the lock for writing ``part``."""
        number = zlib.crc32(str(part.relative_to(self.folder)).encode()) % WRITE_LOCKS
        return self._lock(f"{number:02d}").acquire(timeout=-1 if wait else 0)

    def _lock(self, name: str) -> FileLock:
        folder = self.folder / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name)

    def _not_writable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.folder}: {self.contents} cannot be written there ({error}); set cache_dir or "
            f"ACTIONPRIOR_CACHE to a folder with free space, or {self.limit_name} to the space "
            "that is free"
        )


class CachedRows:
    """Memory-mapped array of one file."""

    def __init__(self, path: Path, shape: Shape, dtype: np.dtype[Any]) -> None:
        content = np.asarray(np.memmap(path, np.uint8, "r"))
        first, last = len(_header(shape, dtype)), len(content) - 4 * shape[0]
        self._rows: Rows = content[first:last].view(dtype).reshape(shape)
        self._checksums_N = np.frombuffer(content[last:].tobytes(), "<u4")
        self._good_N = np.zeros(shape[0], dtype=np.bool_)

    def row(self, index: int) -> Rows | None:
        """Return one row, or None if its checksum is wrong."""
        row: Rows = self._rows[index]
        if not self._good_N[index]:
            if zlib.crc32(row) != self._checksums_N[index]:
                return None
            self._good_N[index] = True
        return row


class _CacheFile(NamedTuple):
    path: Path
    size: int
    used: float  # time of last use [s]

    @property
    def unfinished(self) -> bool:
        return self.path.suffix == UNFINISHED


def file_size(shape: Shape, dtype: np.dtype[Any] = BYTE) -> int:
    """Return the size of a file [bytes] that holds an array."""
    return len(_header(shape, dtype)) + math.prod(shape) * dtype.itemsize + 4 * shape[0]


def _header(shape: Shape, dtype: np.dtype[Any]) -> bytes:
    buffer = BytesIO()
    about = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)  # type: ignore[no-untyped-call]  # numpy
    return buffer.getvalue()


def _write(file: BinaryIO, shape: Shape, dtype: np.dtype[Any], chunks: Iterable[Tensor]) -> None:
    file.write(_header(shape, dtype))
    checksums: list[int] = []
    for chunk in chunks:
        for row in np.ascontiguousarray(chunk.numpy(), dtype):
            checksums.append(zlib.crc32(row))
            file.write(row)
    file.write(np.array(checksums, "<u4").tobytes())
    file.flush()
    os.fsync(file.fileno())
