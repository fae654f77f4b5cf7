"""Read LeRobot datasets on disk with pyarrow, formats v3.0 and v2.1, without images and videos.

lerobot itself takes ten CPU-seconds to import, and asks the hub for missing files. This module
reads what Stage 1 needs, and rejects damaged files with an error of one sentence.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.files.digest import digest

AnyArray = npt.NDArray[Any]

ROW_COLUMNS = ("episode_index", "timestamp", "task_index")
VERSIONS = ("v3.", "v2.1")
AT_ONCE = 1 << 16
"""Rows that are read at once, which limits memory for data files of any size."""


def read_info(root: Path) -> dict[str, Any]:
    """Read and check ``meta/info.json``.

    Raises:
        DataError: The file is missing or damaged, or the dataset is empty or of an unknown format
            version.
    """
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DataError(f"{root}: has no meta/info.json, so it is not a LeRobot dataset")
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        version, features, fps = info["codebase_version"], info["features"], float(info["fps"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root}: meta/info.json is damaged or incomplete ({error!r})") from error
    if not str(version).startswith(VERSIONS):
        raise DataError(
            f"{root}: is a LeRobot {version} dataset, expected v3.0 or v2.1; convert it with "
            "lerobot's scripts"
        )
    if not isinstance(features, dict) or not fps > 0:
        raise DataError(
            f"{root}: meta/info.json has fps {fps} and features of type "
            f"{type(features).__name__}; expected an fps above 0 and a mapping of features"
        )
    if not info.get("total_episodes") or not info.get("total_frames"):
        raise DataError(f"{root}: the dataset is empty (meta/info.json counts no episode or frame)")
    return info


def is_old(info: dict[str, Any]) -> bool:
    """Return whether a dataset has format v2.1."""
    return str(info["codebase_version"]).startswith("v2.")


def fingerprint(root: Path, folders: Sequence[str] = ("meta", "data")) -> str:
    """Hash the dataset's info, and names, sizes and times of the files in ``folders``."""
    content: list[str | bytes] = [(root / "meta" / "info.json").read_bytes()]
    for folder in folders:
        # Follow links, as reading does. Path.rglob would not.
        walk = os.walk(root / folder, followlinks=True)
        for path in sorted(Path(place) / file for place, _, files in walk for file in files):
            if not path.is_file():  # a broken link
                continue
            stat = path.stat()
            content.append(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}\n")
    return digest(*content)


def feature_names(feature: dict[str, Any]) -> list[str]:
    """Return the names of a vector's entries.

    They are "0", "1", … if the dataset names none, or only the whole vector. If parts of the
    vector share names, the parts' names are prepended: ``left.j0``.
    """
    names, width = feature.get("names"), int(np.prod(feature["shape"]))
    if isinstance(names, dict) and all(isinstance(v, int) for v in names.values()):
        return sorted(names, key=lambda name: int(names[name]))
    parts = list(_flatten(names, "")) if names else []
    flat = [name for _, name in parts]
    if len(set(flat)) < len(flat):
        flat = [f"{part}{name}" for part, name in parts]
    return flat if flat and (len(flat) > 1 or width == 1) else [str(i) for i in range(width)]


def _flatten(names: Any, part: str) -> Iterable[tuple[str, str]]:  # noqa: ANN401  any nesting of lists and dicts
    """Yield each name with the keys that lead to it."""
    if isinstance(names, str):
        yield part, names
    elif isinstance(names, dict):
        for key, inner in names.items():
            yield from _flatten(inner, f"{part}{key}.")
    else:
        for inner in names:
            yield from _flatten(inner, part)


def read_tasks(root: Path, info: dict[str, Any]) -> dict[int, str]:
    """Read the instructions by their ``task_index``, in ascending order.

    Raises:
        DataError: The table is missing or damaged.
    """
    import pandas as pd

    old = is_old(info)
    path = root / "meta" / ("tasks.jsonl" if old else "tasks.parquet")
    if not path.is_file():
        raise DataError(f"{root}: has no meta/{path.name}")
    try:
        table = pd.read_json(path, lines=True).set_index("task") if old else pd.read_parquet(path)
        table = table.sort_values("task_index")
        return {int(n): str(t) for n, t in zip(table["task_index"], table.index, strict=True)}
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({path.name}: {error})") from error


def read_episodes(root: Path, info: dict[str, Any], every_column: bool) -> list[dict[str, Any]]:
    """Read the episode table, one row per episode.

    Args:
        root: Folder of the dataset.
        info: Content of ``meta/info.json``.
        every_column: True reads every column except statistics, False only index and length.

    Raises:
        DataError: The table is missing or damaged.
    """
    import pyarrow.parquet as pq

    try:
        if is_old(info):
            path = root / "meta" / "episodes.jsonl"
            if not path.is_file():
                raise DataError(f"{root}: has no episode table meta/episodes.jsonl")
            lines = path.read_text().splitlines()
            return sorted(map(json.loads, lines), key=lambda row: int(row["episode_index"]))
        paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
        if not paths:
            raise DataError(f"{root}: has no episode table in meta/episodes")
        rows: list[dict[str, Any]] = []
        for path in paths:
            names = [n for n in pq.read_schema(path).names if not n.startswith("stats/")]
            table = pq.read_table(path, columns=names if every_column else _EPISODE_COLUMNS)
            rows += table.to_pylist()
        return rows
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({error})") from error


_EPISODE_COLUMNS = ["episode_index", "length"]


def data_files(root: Path, vectors: Sequence[str]) -> dict[Path, int]:
    """Count the frames of each data file, in order. Only the files' footers are read.

    Raises:
        DataError: A file or a column is missing, a file is damaged, or the dataset is empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted((root / "data").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{root}: has no data/*/*.parquet")
    counts = {}
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                known, counts[path] = file.schema_arrow.names, int(file.metadata.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        if missing := [c for c in (*vectors, *ROW_COLUMNS) if c not in known]:
            raise DataError(f"{path}: has no column {missing[0]!r}; it has {known}")
    if not any(counts.values()):
        raise DataError(f"{root}: the dataset is empty")
    return counts


def read_rows(path: Path, vectors: Sequence[str]) -> Iterator[dict[str, AnyArray]]:
    """Yield the needed columns of a data file, ``AT_ONCE`` rows at a time.

    Raises:
        DataError: The file is damaged, or its rows are ragged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(AT_ONCE, columns=[*vectors, *ROW_COLUMNS]):
                yield {name: _array(path, batch, name) for name in batch.schema.names}
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _array(path: Path, batch: Any, name: str) -> AnyArray:  # noqa: ANN401  pyarrow is untyped
    import pyarrow.compute as pc

    column = batch.column(name)
    if name in ROW_COLUMNS or not hasattr(column, "flatten"):
        values, lengths = column, np.ones(1)
    else:  # a list column of equal lengths holds its values row by row
        values, lengths = column.flatten(), pc.list_value_length(column).to_numpy(False)
    if column.null_count or values.null_count or (lengths != lengths[0]).any():
        raise DataError(f"{path}: {name!r} has empty or ragged rows")
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    return array.reshape(-1) if name in ROW_COLUMNS else array.reshape(batch.num_rows, -1)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: is truncated or not a parquet file ({error})")


def check_episodes(
    root: Path, info: dict[str, Any], episodes: list[dict[str, Any]], frames: int
) -> IntArray:
    """Check the episode table against info and the number of ``frames``. Return the lengths.

    Raises:
        DataError: The episode table contradicts the info or the data.
    """
    lengths = np.array([e["length"] for e in episodes], dtype=np.int64)
    if len(episodes) != info["total_episodes"]:
        raise DataError(
            f"{root}: meta/info.json claims {info['total_episodes']} episodes, "
            f"but meta/episodes lists {len(episodes)}"
        )
    if lengths.sum() != frames:
        raise DataError(
            f"{root}: meta/episodes counts {lengths.sum()} frames, but the data have {frames}"
        )
    return lengths


def check_order(root: Path, first: int, found_N: AnyArray, listed_N: AnyArray) -> None:
    """Check that frames from ``first`` on belong to the episodes that the episode table lists.

    Raises:
        DataError: A frame belongs to another episode. The message names the first one.
    """
    if (wrong := np.nonzero(listed_N != found_N)[0]).size:
        raise DataError(
            f"{root}: frame {first + wrong[0]} is of episode {found_N[wrong[0]]} in the data, "
            f"but of episode {listed_N[wrong[0]]} in meta/episodes"
        )
