"""Cache decoded images on disk, with a size limit, for several processes at once.

A file holds one episode of one camera, uint8 (N, 3, Y, X), as a ``.npy`` array followed by a
checksum of each image. Files are written atomically, and an image is checked on its first read.
When the limit is reached, the least recently used files are deleted.
"""

import math
import os
import zlib
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, suppress
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from torch import Tensor

from actionprior.data import DataError
from actionprior.files.atomic import atomic_replace

ImageArray = npt.NDArray[np.uint8]
Shape = tuple[int, int, int, int]
WRITE_LOCKS = 64
"""Number of locks that writers share. Files of one lock are written one after the other."""
UNFINISHED = ".part"


class WriteOutcome(Enum):
    """Result of an attempt to write a file."""

    PRESENT = "the file is in the cache"
    BUSY = "another process is writing the file"
    NO_ROOM = "the limit leaves no room for the file"


class ImageCache:
    """Folder of decoded episodes.

    Args:
        folder: Folder that holds only this cache.
        limit: Largest total size of all files, including unfinished ones [bytes]. None for no
            limit.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit

    def has(self, path: Path, shape: Shape) -> bool:
        """Return whether a file exists and has the size of a complete one."""
        try:
            return path.stat().st_size == file_size(shape)
        except OSError:
            return False

    def open(self, path: Path, shape: Shape) -> "CachedImages | None":
        """Memory-map a file. Return None if it is missing or incomplete.

        Raises:
            DataError: The file cannot be opened.
        """
        try:
            found = CachedImages(path, shape) if self.has(path, shape) else None
        except FileNotFoundError:  # another process deleted it after the check
            return None
        except OSError as error:
            raise DataError(
                f"{path}: the decoded images cannot be opened ({error}); `ulimit -n` says how many "
                "files a process may open"
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
        images: Callable[[], Iterable[Tensor]],
        keep: Collection[Path],
        wait: bool,
    ) -> WriteOutcome:
        """Write a file atomically, unless it exists.

        Args:
            path: File to write.
            shape: Shape of its images.
            images: Function that yields its images in chunks (N, 3, Y, X).
            keep: Files that must not be deleted to make room.
            wait: Wait for another process that is writing a file of the same lock.

        Raises:
            DataError: The disk is full or not writable, or ``images`` raises it.
        """
        part = path.with_name(f".{path.name}{UNFINISHED}")
        try:
            with self._write_lock(part, wait):
                if self.has(path, shape):
                    return WriteOutcome.PRESENT
                try:
                    if not self._reserve(path, part, file_size(shape), keep):
                        return WriteOutcome.NO_ROOM
                    with part.open("r+b") as file:
                        _write(file, shape, images())
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
            f"{self.folder}: decoded images cannot be written there ({error}); set cache_dir or "
            "ACTIONPRIOR_CACHE to a folder with free space, or cache_gb to the space that is free"
        )


class CachedImages:
    """Memory-mapped images of one file."""

    def __init__(self, path: Path, shape: Shape) -> None:
        content = np.asarray(np.memmap(path, np.uint8, "r"))
        first, last = len(_header(shape)), len(content) - 4 * shape[0]
        self._images_N3YX = content[first:last].reshape(shape)
        self._checksums_N = np.frombuffer(content[last:].tobytes(), "<u4")
        self._good_N = np.zeros(shape[0], dtype=np.bool_)

    def image(self, row: int) -> ImageArray | None:
        """Return one image, uint8 (3, Y, X), or None if its checksum is wrong."""
        image: ImageArray = self._images_N3YX[row]
        if not self._good_N[row]:
            if zlib.crc32(image) != self._checksums_N[row]:
                return None
            self._good_N[row] = True
        return image


class _CacheFile(NamedTuple):
    path: Path
    size: int
    used: float  # time of last use [s]

    @property
    def unfinished(self) -> bool:
        return self.path.suffix == UNFINISHED


def file_size(shape: Shape) -> int:
    """Return the size of a file [bytes] that holds images of a shape."""
    return len(_header(shape)) + math.prod(shape) + 4 * shape[0]


def _header(shape: Shape) -> bytes:
    buffer = BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)  # type: ignore[no-untyped-call]  # numpy
    return buffer.getvalue()


def _write(file: BinaryIO, shape: Shape, chunks: Iterable[Tensor]) -> None:
    file.write(_header(shape))
    checksums: list[int] = []
    for images in chunks:
        for image in np.ascontiguousarray(images.numpy()):
            checksums.append(zlib.crc32(image))
            file.write(image)
    file.write(np.array(checksums, "<u4").tobytes())
    file.flush()
    os.fsync(file.fileno())
