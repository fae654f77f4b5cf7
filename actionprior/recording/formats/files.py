"""Find the recordings that a user names, and yield their episodes."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from glob import glob, has_magic
from pathlib import Path

from actionprior.recording.formats.csv_files import read_csv
from actionprior.recording.formats.episode import ConversionError, SourceEpisode, in_order
from actionprior.recording.formats.hdf5_files import read_hdf5
from actionprior.recording.formats.npz_files import read_npz
from actionprior.recording.formats.ros_bags import read_bag

_BAG = "metadata.yaml"
_READERS: dict[str, Callable[[Path], Iterator[SourceEpisode]]] = {
    ".npz": read_npz,
    ".hdf5": read_hdf5,
    ".h5": read_hdf5,
    ".bag": read_bag,
    ".mcap": read_bag,
    ".db3": read_bag,
}
_ENDINGS = (".csv", *_READERS)


def find_episodes(source: str, episode_key: str) -> Iterator[SourceEpisode]:
    """Yield the episodes of a file, of all files of a folder, or of a pattern such as ``*.csv``.

    Numbers in names count: ``episode_2`` comes before ``episode_10``.

    Args:
        source: File, folder or pattern.
        episode_key: Column that numbers the episodes of a CSV file; empty: one per file.

    Raises:
        ConversionError: There is no recording, or recordings of several kinds.
    """
    for path in _files(source):
        read = _READERS.get(path.suffix.lower(), read_bag)
        if path.suffix.lower() == ".csv":
            read = partial(read_csv, episode_key=episode_key)
        with closing(read(path)) as episodes:  # type: ignore[type-var]  # generators
            yield from episodes


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if not path.exists() and has_magic(source):
        found = in_order([Path(name) for name in glob(str(path), recursive=True)])
        wanted = [file for file in found if _ending(file)]
    elif path.is_dir() and not (path / _BAG).is_file():
        bags = [file.parent for file in path.rglob(_BAG)]
        inside = [file for file in path.rglob("*") if file.is_file() and _ending(file)]
        wanted = in_order(bags + [f for f in inside if f.parent not in bags])
    else:
        wanted = [path] if _ending(path) else []
    if not path.exists() and not has_magic(source):
        raise ConversionError(f"{source} does not exist")
    if not wanted:
        raise ConversionError(
            f"{source} holds no recording; expected files that end in {', '.join(_ENDINGS)}, or "
            "folders of ROS 2 bags"
        )
    kinds = sorted({_ending(file) for file in wanted})
    if len(kinds) > 1:
        raise ConversionError(
            f"{source} holds recordings of several kinds, {', '.join(kinds)}; choose one with a "
            f"pattern such as '{source}/*{kinds[0]}'"
        )
    return wanted


def _ending(path: Path) -> str:
    if path.is_dir():
        return _BAG if (path / _BAG).is_file() else ""
    return path.suffix.lower() if path.suffix.lower() in _ENDINGS else ""
