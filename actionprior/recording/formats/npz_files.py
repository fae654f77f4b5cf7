"""NumPy's npz files: an episode per file, an array per key. Nothing is unpickled."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.errors import shorten, shown
from actionprior.recording.formats.episode import (
    ConversionError,
    Pictures,
    SourceEpisode,
    Vector,
    colours,
    entry_names,
    numbers,
)

TASK = "task"
MOST_BYTES = 1 << 34
"""Size of an unpacked array above which it is not read."""


def read_npz(path: Path) -> Iterator[SourceEpisode]:
    """Yield the one episode of an npz file.

    Raises:
        ConversionError: It is no npz file.
    """
    try:
        archive: Any = np.load(path, allow_pickle=False)
        if not hasattr(archive, "files"):
            raise ConversionError(f"{path} is a single array, expected an npz file with keys")
        with archive:
            yield _NpzEpisode(path, archive)
    except ConversionError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ConversionError(f"{path} cannot be read as npz ({shorten(error)})") from error


class _NpzEpisode(SourceEpisode):
    def __init__(self, path: Path, archive: Any) -> None:  # noqa: ANN401  NumPy's own
        self.name = str(path)
        self._archive = archive

    def keys(self) -> list[str]:
        return list(self._archive.files)

    def vector(self, key: str) -> Vector:
        values_Tn = numbers(self._array(key), f"{self.name}: {shown(key)}")
        return Vector(entry_names(key, values_Tn.shape[1]), values_Tn)

    def pictures(self, key: str) -> Pictures:
        images, place = self._array(key), f"{self.name}: {shown(key)}"
        if images.ndim != 4:
            raise ConversionError(
                f"{place} has the shape {images.shape}, expected (samples, rows, columns, 3)"
            )
        return Pictures(len(images), lambda chosen: (colours(images[i], place) for i in chosen))

    def instruction(self) -> str:
        if TASK not in self._archive.files:
            return ""
        found = self._array(TASK)
        if found.size != 1 or found.dtype.kind != "U":
            raise ConversionError(f"{self.name}: 'task' is {found.dtype}, expected one text")
        return str(found.item())

    def _array(self, key: str) -> Any:  # noqa: ANN401  an array of any type
        if key not in self._archive.files:
            raise self.missing(key)
        size = self._archive.zip.getinfo(self._member(key)).file_size
        if size > MOST_BYTES:
            raise ConversionError(
                f"{self.name}: {shown(key)} unpacks to {size} bytes, expected at most {MOST_BYTES}"
            )
        try:
            return self._archive[key]
        except (ValueError, zipfile.BadZipFile, EOFError, MemoryError) as error:
            raise ConversionError(
                f"{self.name}: {shown(key)} cannot be read; arrays of objects are not unpickled "
                f"({shorten(error)})"
            ) from error

    def _member(self, key: str) -> str:
        names = self._archive.zip.namelist()
        return key if key in names else f"{key}.npy"
