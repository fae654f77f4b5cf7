"""A LeRobot dataset's trajectories, extracted once into a store that is mapped into memory.

The store is named by its source and by a fingerprint of it: a source that has changed is
extracted anew, and what was made of it before is removed.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.column_store import FORMAT, Store, StoreError, open_store, write_store
from actionprior.data import DataError
from data_modules.lerobot_source import (
    AnyArray,
    check_episodes,
    fingerprint,
    read_episodes,
    read_rows,
    read_tasks,
)

_log = logging.getLogger(__name__)

Made = tuple[dict[str, AnyArray], dict[str, Any]]
"""Columns of a store, and what is told of them in plain data."""


def cache_folder(kind: str, chosen: str | None = None) -> Path:
    """Where what is made of datasets is kept: $ACTIONPRIOR_CACHE or ~/.cache/actionprior."""
    base = chosen or os.environ.get("ACTIONPRIOR_CACHE") or "~/.cache/actionprior"
    return Path(base).expanduser() / kind


def stored(root: Path, info: dict[str, Any], action_key: str, state_key: str) -> Store:
    """The dataset's store, extracted first where there is none, or none that is whole.

    Columns: ``action`` (N, n_a), ``state`` (N, n_s) float32; ``timestamp`` float64 (N,); ``task``
    int64 (N,); by episode ``length`` int64 (E,) and ``rate`` float64 (E,) [frames a second by
    the timestamps; NaN for a single frame, 0 where time does not go on]. ``about`` holds
    ``tasks`` and ``not_finite``: by column, entry → [first frame, its value, count].

    Raises:
        DataError: the dataset cannot be read, or the store cannot be written.
    """
    name = f"{FORMAT} {action_key} {state_key}"
    return kept(root, name, lambda: _extract(root, info, action_key, state_key))


def kept(root: Path, name: str, make: Callable[[], Made]) -> Store:
    """What ``make`` makes of the dataset at ``root``, made once and kept under ``name``.

    Several processes may ask at once: one makes it, the others wait. It is made anew when the
    dataset has changed, or when what was kept is damaged.

    Raises:
        DataError: from ``make``, or the store cannot be written.
    """
    from filelock import FileLock

    source = hashlib.sha256(f"{root.resolve()} {name}".encode()).hexdigest()[:12]
    prefix = f"{root.name}-{source}-"
    folder = cache_folder("trajectories") / f"{prefix}{fingerprint(root)[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{prefix}lock"):
            if folder.exists():
                try:
                    return open_store(folder)
                except StoreError as error:
                    _log.warning("%s; it is made anew", error)
            write_store(folder, *make())
            for old in folder.parent.glob(f"{prefix}*"):
                if old != folder:
                    shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the trajectories of {root} cannot be kept there ({error}); "
            "set ACTIONPRIOR_CACHE to a folder with room"
        ) from error
    return open_store(folder)


def _extract(root: Path, info: dict[str, Any], action_key: str, state_key: str) -> Made:
    tasks, episodes = read_tasks(root, info), read_episodes(root, info, every_column=False)
    rows = read_rows(root, [action_key, state_key])
    lengths_E = check_episodes(root, info, episodes, rows["episode_index"])
    if rows["task_index"].max() >= len(tasks) or rows["task_index"].min() < 0:
        raise DataError(f"{root}: a frame has a task_index that its table of tasks does not name")
    columns: dict[str, AnyArray] = {}
    for name, key in (("action", action_key), ("state", state_key)):
        width = int(np.prod(info["features"][key]["shape"]))
        if rows[key].shape[1] != width:
            raise DataError(
                f"{root}: {key!r} has {rows[key].shape[1]} entries in the data, "
                f"but {width} in meta/info.json"
            )
        columns[name] = rows[key].astype(np.float32)
    columns["timestamp"] = rows["timestamp"].astype(np.float64)
    columns["task"] = rows["task_index"].astype(np.int64)
    columns["length"] = lengths_E
    columns["rate"] = _rates(columns["timestamp"], lengths_E)
    not_finite = {name: _not_finite(columns[name]) for name in ("action", "state")}
    return columns, {"tasks": tasks, "not_finite": not_finite}


def _rates(timestamp_N: AnyArray, lengths_E: AnyArray) -> AnyArray:
    stops_E = np.cumsum(lengths_E)
    rates = np.full(len(lengths_E), np.nan)
    for episode, (stop, length) in enumerate(zip(stops_E, lengths_E, strict=True)):
        steps = np.diff(timestamp_N[stop - length : stop])
        if len(steps):
            rates[episode] = 1 / steps.mean() if steps.min() > 0 else 0.0
    return rates


def _not_finite(values_ND: AnyArray) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    bad_ND = ~np.isfinite(values_ND)
    for entry in np.nonzero(bad_ND.any(axis=0))[0].tolist():
        frame = int(bad_ND[:, entry].argmax())
        found[str(entry)] = [frame, str(values_ND[frame, entry]), int(bad_ND[:, entry].sum())]
    return found
