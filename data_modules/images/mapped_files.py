"""Memory-mapped files of caches, of which a process opens a limited number."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from data_modules.images.cache import ArrayCache, CachedRows, Shape

Key = tuple[int | str, ...]
Locate = Callable[..., tuple[Path, Shape]]
MAX_MAPPED_FILES = 8192
"""Most files that a process maps at once. Systems allow some 65,000 maps."""
_all_open: "WeakSet[MappedFiles]" = WeakSet()
"""Everything that this process has mapped, since all maps share one limit of file descriptors."""


class MappedFiles:
    """Files of one cache, mapped on first use. Worker processes map the files themselves.

    Args:
        cache: Cache that holds the files.
    """

    def __init__(self, cache: ArrayCache) -> None:
        self.cache = cache
        self._open: dict[Key, CachedRows] = {}
        self._most = max_mapped_files()
        _all_open.add(self)

    def get(self, locate: Locate, *key: int | str) -> CachedRows | None:
        """Return the array of a file, or None if the cache lacks it.

        Args:
            locate: Function from the key to the file's path and the shape of its array.
            key: What identifies the file.

        Raises:
            DataError: The file cannot be opened.
        """
        found = self._open.get(key)
        if found is None and (found := self.cache.open(*locate(*key))) is not None:
            if sum(len(files._open) for files in _all_open) >= self._most:
                fullest = max(_all_open, key=lambda files: len(files._open))
                del fullest._open[next(iter(fullest._open))]
            self._open[key] = found
        return found

    def delete(self, path: Path, *key: int | str) -> None:
        """Delete a damaged file, unless the cache cannot be written."""
        self._open.pop(key, None)
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled with its content.
        return {**self.__dict__, "_open": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _all_open.add(self)


def max_mapped_files() -> int:
    """Raise the limit of open files, and return how many this process may map.

    Half of the limit stays free for other files. On many systems a process may open 1,024 files
    unless it raises the limit.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MAX_MAPPED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (
        2 * MAX_MAPPED_FILES if hard == resource.RLIM_INFINITY else min(2 * MAX_MAPPED_FILES, hard)
    )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return MAX_MAPPED_FILES if soft == resource.RLIM_INFINITY else min(MAX_MAPPED_FILES, soft // 2)
