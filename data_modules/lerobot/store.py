"""Extract a LeRobot dataset's trajectories once, into a memory-mapped store.

A store's name holds a hash of its source and a fingerprint of the source's files. A changed
dataset is extracted again, and its old store is deleted.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.data import DataError
from actionprior.data.column_store import (
    FORMAT,
    Store,
    StoreError,
    StoreWriter,
    open_store,
    write_store,
)
from actionprior.data.pseudo_random import IntArray
from actionprior.files.digest import digest
from data_modules.lerobot.names import vector_width
from data_modules.lerobot.source import (
    AnyArray,
    check_episodes,
    check_order,
    data_files,
    fingerprint,
    is_old,
    read_episodes,
    read_rows,
)
from data_modules.lerobot.tasks import read_tasks

_log = logging.getLogger(__name__)


def cache_folder(kind: str, chosen: str | None = None) -> Path:
    """Return the folder of a kind of cache, by default in ``~/.cache/actionprior``.

    Args:
        kind: Name of the folder.
        chosen: Parent folder. Empty or None selects ``$ACTIONPRIOR_CACHE``, or else the default.
    """
    base = chosen or os.environ.get("ACTIONPRIOR_CACHE") or "~/.cache/actionprior"
    return Path(base).expanduser() / kind


def open_dataset_store(root: Path, info: dict[str, Any], action_key: str, state_key: str) -> Store:
    """Open a dataset's store. Extract it first if it is missing or damaged.

    Columns by frame are ``action`` (N, n_a) and ``state`` (N, n_s), float32, ``timestamp`` (N,),
    float64, and ``task`` (N,), int64. Columns by episode are ``length`` (E,), int64, and ``rate``
    (E,), float64: frames per second by the timestamps, NaN for a single frame, 0 if timestamps do
    not increase. ``about`` holds ``not_finite`` with [first frame, its value, count] for each
    column and entry. ``task`` counts the instructions in the order of ``read_tasks``.

    Extraction reads file by file, ``source.AT_ONCE`` rows at a time.

    Raises:
        DataError: The dataset cannot be read, or the store cannot be written.
    """
    return open_cached_store(
        root,
        # Older stores of format v2.1 ignored gaps in task indices; another name excludes them.
        f"{action_key} {state_key}" + (" tasks by index" if is_old(info) else ""),
        lambda store: _extract(root, info, action_key, state_key, store),
    )


def open_cached_store(root: Path, name: str, make: Callable[[StoreWriter], None]) -> Store:
    """Open a store that is derived from the dataset at ``root``. Create it if necessary.

    If several processes need it, one creates it and the others wait. It is created again if the
    dataset has changed or the store is damaged. A whole store is opened without a lock, so that it
    may be read-only.

    Args:
        root: Folder of the dataset.
        name: Description of what is derived. Its hash is a part of the store's name.
        make: Function that writes the store.

    Raises:
        DataError: ``make`` raised it, or the store cannot be written.
    """
    from filelock import FileLock

    source = digest(f"{root.resolve()} {name}")[:12]
    prefix, state = f"{root.name}-{source}-", fingerprint(root)
    folder = cache_folder("trajectories") / f"{prefix}{state[:16]}-{FORMAT}"
    damaged = None
    try:
        if folder.exists():
            try:
                return open_store(folder)
            except StoreError as error:
                damaged = error
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{prefix}lock"):
            if folder.exists():  # another process may have created it in the meantime
                try:
                    return open_store(folder)
                except StoreError as error:
                    damaged = error
            if damaged is not None:
                _log.warning("%s; it is created again", damaged)
            with write_store(folder) as store:
                make(store)
                if fingerprint(root) != state:
                    raise DataError(f"{root}: changed while it was read; run again")
            for old in folder.parent.glob(f"{prefix}*"):
                if old != folder:
                    shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the trajectories of {root} cannot be written there ({error}); "
            "set ACTIONPRIOR_CACHE to a folder with free space"
        ) from error
    return open_store(folder)


def _extract(
    root: Path, info: dict[str, Any], action_key: str, state_key: str, store: StoreWriter
) -> None:
    tasks, episodes = read_tasks(root, info), read_episodes(root, info, every_column=False)
    keys = {"action": action_key, "state": state_key}
    widths = {key: vector_width(info["features"][key]) for key in keys.values()}
    files = data_files(root, widths)
    lengths_E = check_episodes(root, info, episodes, sum(files.values()))
    stops_E, rates, first = np.cumsum(lengths_E), _FrameRates(len(lengths_E)), 0
    number_E = np.array([e["episode_index"] for e in episodes], dtype=np.int64)
    not_finite: dict[str, dict[str, list[Any]]] = {name: {} for name in keys}
    for path in files:
        for rows in read_rows(path, [*keys.values()]):
            count = len(rows["task_index"])
            episode_N = np.searchsorted(stops_E, np.arange(first, first + count), side="right")
            check_order(root, first, rows["episode_index"], number_E[episode_N])
            task_N = _tasks(root, np.array([*tasks]), rows["task_index"], rows["episode_index"])
            columns = {name: _vectors(root, info, key, rows[key]) for name, key in keys.items()}
            for name, values_ND in columns.items():
                _record_not_finite(not_finite[name], values_ND, first)
            columns["timestamp"] = rows["timestamp"].astype(np.float64)
            columns["task"] = task_N
            rates.add(episode_N, columns["timestamp"])
            store.append(columns)
            first += count
    store.append({"length": lengths_E, "rate": rates.compute(lengths_E)})
    store.about |= {"not_finite": not_finite}


def _tasks(root: Path, known_T: IntArray, index_N: AnyArray, episode_N: AnyArray) -> IntArray:
    """Return the row of each frame's task in the table, whose indices are ``known_T``."""
    place_N = np.minimum(np.searchsorted(known_T, index_N), max(0, len(known_T) - 1))
    wrong_N = known_T[place_N] != index_N if len(known_T) else np.ones(len(index_N), dtype=bool)
    if wrong_N.any():
        first = int(wrong_N.argmax())
        raise DataError(
            f"{root}: a frame of episode {episode_N[first]} has task_index {index_N[first]}, which "
            f"the table of tasks in meta does not list; it lists {known_T[:20].tolist()}"
        )
    return place_N.astype(np.int64)


def _vectors(root: Path, info: dict[str, Any], key: str, values_ND: AnyArray) -> AnyArray:
    width = vector_width(info["features"][key])
    if values_ND.shape[1] != width:
        raise DataError(
            f"{root}: {key!r} has {values_ND.shape[1]} entries in the data, "
            f"but {width} in meta/info.json"
        )
    return values_ND.astype(np.float32)


class _FrameRates:
    """Computes the frames per second of each episode, from timestamps that arrive in parts."""

    def __init__(self, episodes: int) -> None:
        self.first_E = np.full(episodes, np.nan)
        self.last_E = np.full(episodes, np.nan)
        self.shortest_E = np.full(episodes, np.inf)  # step
        self._before = (-1, np.nan)  # episode and time of the previous frame

    def add(self, episode_N: IntArray, timestamp_N: AnyArray) -> None:
        same_N = np.diff(episode_N, prepend=self._before[0]) == 0
        step_N = np.diff(timestamp_N, prepend=self._before[1])
        np.minimum.at(self.shortest_E, episode_N[same_N], step_N[same_N])
        self.first_E[episode_N[~same_N]] = timestamp_N[~same_N]
        self.last_E[episode_N] = timestamp_N  # of repeated indices, the last one wins
        self._before = (int(episode_N[-1]), float(timestamp_N[-1]))

    def compute(self, lengths_E: IntArray) -> AnyArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            rate_E: AnyArray = (lengths_E - 1) / (self.last_E - self.first_E)
        rate_E[~(self.shortest_E > 0)] = 0.0
        rate_E[lengths_E == 1] = np.nan
        return rate_E


def _record_not_finite(found: dict[str, list[Any]], values_ND: AnyArray, first: int) -> None:
    bad_ND = ~np.isfinite(values_ND)
    for entry in np.nonzero(bad_ND.any(axis=0))[0].tolist():
        row = int(bad_ND[:, entry].argmax())
        facts = found.setdefault(str(entry), [first + row, str(values_ND[row, entry]), 0])
        facts[2] += int(bad_ND[:, entry].sum())
