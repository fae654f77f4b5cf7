"""Decoded images on disk, within a bound, shared by processes.

A file holds one episode of one camera, uint8 (N, 3, Y, X), as a ``.npy`` array with a checksum of
each image behind it. It appears whole or not at all, and an image is checked when it is first
read. Files that were used longest ago make room for others.
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
TURNS = 64
"""Locks that writers share: files of one lock are written one after the other."""
UNFINISHED = ".part"


class WriteOutcome(Enum):
    """How an attempt to write a file ended."""

    WHOLE = "it is there"
    BUSY = "another process writes it"
    NO_ROOM = "the bound does not leave room for it"


class ImageCache:
    """A folder of decoded episodes.

    Args:
        folder: everything in it belongs to the cache.
        limit: most bytes of all files, unfinished ones included; None for no bound.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit

    def has(self, path: Path, shape: Shape) -> bool:
        """Whether a file is there, as long as it should be."""
        try:
            return path.stat().st_size == file_size(shape)
        except OSError:
            return False

    def open(self, path: Path, shape: Shape) -> "CachedImages | None":
        """Map a file; None where there is none, or none that is whole.

        Raises:
            DataError: it cannot be opened.
        """
        try:
            found = CachedImages(path, shape) if self.has(path, shape) else None
        except FileNotFoundError:  # it made room for another one just now
            return None
        except OSError as error:
            raise DataError(
                f"{path}: the decoded images cannot be opened ({error}); `ulimit -n` says how many "
                "files a process may open"
            ) from error
        if found is not None:
            with suppress(OSError):  # a cache of others, read only
                os.utime(path)
        return found

    def room(self, keep: Collection[Path]) -> float:
        """Bytes that can be written without removing one of ``keep``."""
        if self.limit is None:
            return math.inf
        return self.limit - sum(f.size for f in self._files() if f.unfinished or f.path in keep)

    def tidy(self, keep: Collection[Path]) -> None:
        """Remove what killed writers left, and what exceeds the bound, ``keep`` last.

        Raises:
            DataError: the folder is not writable.
        """
        try:
            for file in self._files():
                if file.unfinished:
                    with suppress(Timeout), self._turn(file.path, wait=False):
                        file.path.unlink(missing_ok=True)
            if self.limit is not None:
                with self._lock("room"):
                    self._make_room(0, keep, even_kept=True)
        except OSError as error:
            raise self._refused(error) from error

    def write(
        self,
        path: Path,
        shape: Shape,
        images: Callable[[], Iterable[Tensor]],
        keep: Collection[Path],
        wait: bool,
    ) -> WriteOutcome:
        """Write a file unless it is there; a killed process leaves nothing that looks whole.

        Args:
            path: of the file.
            shape: of what it holds.
            images: gives what it holds, in chunks (N, 3, Y, X).
            keep: files that must not make room for it.
            wait: for another process that writes one of the same lock.

        Raises:
            DataError: the disk is full or not writable, or ``images`` raises it.
        """
        part = path.with_name(f".{path.name}{UNFINISHED}")
        try:
            with self._turn(part, wait):
                if self.has(path, shape):
                    return WriteOutcome.WHOLE
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
            raise self._refused(error) from error
        return WriteOutcome.WHOLE

    # ---- parts --------------------------------------------------------------------------------

    def _reserve(self, path: Path, part: Path, size: int, keep: Collection[Path]) -> bool:
        """Make ``part``, empty but as long as it will be, so that all can count it."""
        with self._lock("room"):
            path.unlink(missing_ok=True)  # it is not whole
            if not self._make_room(size, keep):
                return False
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.truncate(size)
        return True

    def _make_room(self, size: int, keep: Collection[Path], *, even_kept: bool = False) -> bool:
        """Remove what was used longest ago until ``size`` more bytes fit, if they can."""
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

    def _files(self) -> list["_File"]:
        found = []
        for path in self.folder.rglob("*"):
            if path.suffix in (".npy", UNFINISHED):
                with suppress(FileNotFoundError):  # renamed or removed just now
                    stat = path.stat()
                    found.append(_File(path, stat.st_size, stat.st_mtime))
        return found

    def _turn(self, part: Path, wait: bool) -> AbstractContextManager[object]:
        """The lock under which ``part`` is written."""
        number = zlib.crc32(str(part.relative_to(self.folder)).encode()) % TURNS
        return self._lock(f"{number:02d}").acquire(timeout=-1 if wait else 0)

    def _lock(self, name: str) -> FileLock:
        folder = self.folder / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name)

    def _refused(self, error: OSError) -> DataError:
        return DataError(
            f"{self.folder}: decoded images cannot be kept there ({error}); give cache_dir or "
            "ACTIONPRIOR_CACHE a folder with room, or set cache_gb to the room there is"
        )


class CachedImages:
    """The images of one file, mapped into memory."""

    def __init__(self, path: Path, shape: Shape) -> None:
        content = np.asarray(np.memmap(path, np.uint8, "r"))
        first, last = len(_header(shape)), len(content) - 4 * shape[0]
        self._images_N3YX = content[first:last].reshape(shape)
        self._checksums_N = np.frombuffer(content[last:].tobytes(), "<u4")
        self._good_N = np.zeros(shape[0], dtype=np.bool_)

    def image(self, row: int) -> ImageArray | None:
        """uint8 (3, Y, X); None where it is not what was written."""
        image: ImageArray = self._images_N3YX[row]
        if not self._good_N[row]:
            if zlib.crc32(image) != self._checksums_N[row]:
                return None
            self._good_N[row] = True
        return image


class _File(NamedTuple):
    path: Path
    size: int
    used: float  # when it was last opened [s]

    @property
    def unfinished(self) -> bool:
        return self.path.suffix == UNFINISHED


def file_size(shape: Shape) -> int:
    """Bytes of a file."""
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
