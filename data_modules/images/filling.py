"""Fill a cache with the episodes that a run uses, together with other processes."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from actionprior.files.progress import episode_bar
from data_modules.images.cache import ArrayCache, Shape, WriteOutcome


class CacheItem(Protocol):
    """One file of a cache, and how to compute it."""

    @property
    def path(self) -> Path:
        """File in the cache."""

    @property
    def shape(self) -> Shape:
        """Shape of the file's array."""

    def write(self, keep: Collection[Path], wait: bool) -> WriteOutcome:
        """Compute the array and write the file, see ``ArrayCache.write``."""


class Shortage(NamedTuple):
    """Files for which the limit of a cache leaves no room."""

    lacking: int  # files without room
    wanted: int  # files of the run
    bytes: int  # size of all files of the run


def missing_items[Item: CacheItem](cache: ArrayCache, wanted: Sequence[Item]) -> list[Item]:
    """Return the items whose files the cache lacks, each once."""
    by_path = {item.path: item for item in wanted}
    return [item for path, item in by_path.items() if not cache.has(path, item.shape)]


def fill_cache(cache: ArrayCache, wanted: Sequence[CacheItem], label: str) -> Shortage | None:
    """Write the files that the cache lacks.

    Args:
        cache: Cache of the files.
        wanted: Files of the run.
        label: Text before the progress bar.

    Returns:
        What the limit leaves no room for; None if all files are in the cache.

    Raises:
        DataError: An episode cannot be computed or written.
    """
    by_path = {item.path: item for item in wanted}
    if not missing_items(cache, wanted) and not cache.writable:
        return None  # another user's cache, or one on a read-only disk
    cache.clean_up(by_path.keys())
    missing = {item.path: item for item in missing_items(cache, wanted)}
    room = cache.available_bytes(by_path.keys() - missing.keys())
    fitting: list[CacheItem] = []
    lacking: list[CacheItem] = []
    for item in missing.values():
        size = cache.size(item.shape)
        if size <= room:
            fitting.append(item)
            room -= size
        else:
            lacking.append(item)
    lacking += _write(fitting, by_path.keys(), label)
    if not lacking or cache.limit is None:
        return None
    needed = sum(cache.size(item.shape) for item in by_path.values())
    return Shortage(len(lacking), len(by_path), needed)


def _write(items: list[CacheItem], keep: Collection[Path], label: str) -> list[CacheItem]:
    """Write files, and return the items for which other processes left no room."""
    if not items:
        return []
    lacking = []
    with episode_bar(label, len(items)) as bar:
        for wait in (False, True):  # first the items that no other process is computing
            busy = []
            for item in items:
                outcome = item.write(keep, wait)
                if outcome is WriteOutcome.BUSY:
                    busy.append(item)
                    continue
                bar.update()
                if outcome is WriteOutcome.NO_ROOM:
                    lacking.append(item)
            items = busy
    return lacking
