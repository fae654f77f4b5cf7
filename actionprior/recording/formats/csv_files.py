"""CSV files: a column per number, and images in files or videos beside them."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprior.errors import shorten, shown
from actionprior.files.pictures import ONLY_VIDEOS, read_picture
from actionprior.recording.formats.episode import (
    ConversionError,
    Frame,
    Pictures,
    SourceEpisode,
    Vector,
    natural_key,
    numbers,
)

if TYPE_CHECKING:
    import pandas as pd

TASK = "task"
VIDEOS = (".mp4", ".mkv", ".avi")
STEM = "{stem}"
"""Stands for the name of the CSV file without its suffix, in the name of a folder or video."""


def read_csv(path: Path, episode_key: str) -> Iterator[SourceEpisode]:
    """Yield the episodes of a CSV file.

    Args:
        path: The file.
        episode_key: Column that numbers the episodes; empty: the file is one episode.

    Raises:
        ConversionError: The file is no CSV file with a line of names, or lacks the column.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except Exception as error:  # pandas raises many kinds
        raise ConversionError(f"{path} cannot be read as CSV ({shorten(error)})") from error
    if not len(table):
        raise ConversionError(f"{path} has no line of values")
    table.columns = [str(name).strip() for name in table.columns]
    if not episode_key:
        yield _CsvEpisode(str(path), path, table)
        return
    if episode_key not in table:
        raise ConversionError(f"{path}: has no column {shown(episode_key)} (--episode_key)")
    if (empty := table[episode_key].isna()).any():
        raise ConversionError(
            f"{path}: line {int(empty.to_numpy().argmax()) + 2} has no {shown(episode_key)}"
        )
    for number, part in table.groupby(episode_key, sort=False):
        yield _CsvEpisode(f"{path}, {episode_key} {number}", path, part)


class _CsvEpisode(SourceEpisode):
    def __init__(self, name: str, path: Path, table: "pd.DataFrame") -> None:
        self.name = name
        self._path, self._table = path, table

    def keys(self) -> list[str]:
        return list(self._table.columns)

    def vector(self, key: str) -> Vector:
        names = [name for name in self.keys() if name == key or fnmatchcase(name, key)]
        if not names:
            raise self.missing(key)
        columns = [numbers(self._table[n].to_numpy(), f"{self.name}: {shown(n)}") for n in names]
        return Vector(names, np.concatenate(columns, axis=1))

    def pictures(self, key: str) -> Pictures:
        if STEM in key:
            return self._beside(key.replace(STEM, self._path.stem))
        if key not in self._table:
            raise self.missing(key)
        cells = self._table[key].tolist()
        return Pictures(len(cells), lambda chosen: (self._picture(cells[i]) for i in chosen))

    def instruction(self) -> str:
        if TASK not in self._table:
            return ""
        found = self._table[TASK].dropna().unique().tolist()
        if len(found) != 1:
            raise ConversionError(
                f"{self.name}: column {TASK!r} has {len(found)} texts, expected the same one in "
                "each line; set --task, or --episode_key"
            )
        return str(found[0])

    def _picture(self, name: object) -> Frame:
        return read_picture(self._below(name), f"{self.name}: image {shown(name)}")

    def _beside(self, name: str) -> Pictures:
        """Open a folder of images, or a video, that belongs to this file."""
        place = self._path.parent / name
        if place.is_dir():
            inside = sorted((p.name for p in place.iterdir()), key=natural_key)
            files = [f"{name}/{file}" for file in inside if not file.startswith(".")]
            return Pictures(len(files), lambda chosen: (self._picture(files[i]) for i in chosen))
        if place.suffix.lower() not in VIDEOS:
            raise ConversionError(
                f"{place} is no folder of images, and no video of {', '.join(VIDEOS)} (--cameras)"
            )
        return video(self._below(name))

    def _below(self, name: object) -> Path:
        """Return a file that the CSV file names, which must lie in its folder."""
        folder = self._path.parent.resolve()
        path = (folder / str(name)).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise ConversionError(
                f"{self.name}: names the image {shown(name)}, which is no file below {folder}"
            )
        return path


def video(path: Path) -> Pictures:
    """Open a video.

    Raises:
        ConversionError: It cannot be decoded.
    """
    return Pictures(sum(1 for _ in _decode(path)), lambda chosen: _chosen(path, chosen))


def _chosen(path: Path, indices: Sequence[int]) -> Iterator[Frame]:
    frames = enumerate(_decode(path))
    number, frame = next(frames)
    for wanted in indices:  # ascending; one image may be wanted several times
        while number < wanted:
            number, frame = next(frames)
        yield frame


def _decode(path: Path) -> Iterator[Frame]:
    import av

    try:
        with av.open(str(path), options=ONLY_VIDEOS) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (OSError, av.error.FFmpegError, IndexError) as error:
        raise ConversionError(f"{path} cannot be read as a video ({shorten(error)})") from error
