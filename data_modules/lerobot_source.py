"""LeRobot datasets as they lie on disk, formats v3.0 and v2.1, without their images and videos.

lerobot itself accepts missing files (it then asks the hub) and takes ten CPU-seconds to import;
what Stage 1 needs is read here with pyarrow, and what is wrong is refused in one sentence.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actionprior.data import DataError
from actionprior.permutation import IntArray

AnyArray = npt.NDArray[Any]

ROW_COLUMNS = ("episode_index", "timestamp", "task_index")
VERSIONS = ("v3.", "v2.1")


def read_info(root: Path) -> dict[str, Any]:
    """``meta/info.json``.

    Raises:
        DataError: missing, damaged, of an unknown format version, or of an empty dataset.
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
        raise DataError(f"{root}: meta/info.json has fps {fps} and {len(features)} features")
    if not info.get("total_episodes") or not info.get("total_frames"):
        raise DataError(f"{root}: the dataset is empty (meta/info.json counts no episode or frame)")
    return info


def fingerprint(root: Path, folders: Sequence[str] = ("meta", "data")) -> str:
    """Changes with the dataset: its info; names, sizes and times of the files in ``folders``."""
    digest = hashlib.sha256((root / "meta" / "info.json").read_bytes())
    for folder in folders:
        for path in sorted(p for p in (root / folder).rglob("*") if p.is_file()):
            stat = path.stat()
            told = f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}\n"
            digest.update(told.encode())
    return digest.hexdigest()


def feature_names(feature: dict[str, Any]) -> list[str]:
    """Names of a vector's entries; "0", "1", … where the dataset gives none."""
    names = feature.get("names")
    if isinstance(names, dict) and all(isinstance(v, int) for v in names.values()):
        return sorted(names, key=lambda name: int(names[name]))
    flat = list(_flatten(names)) if names else []
    return flat or [str(i) for i in range(int(np.prod(feature["shape"])))]


def _flatten(names: Any) -> Iterable[str]:  # noqa: ANN401  any nesting of lists and dicts
    if isinstance(names, str):
        yield names
    else:
        for part in names.values() if isinstance(names, dict) else names:
            yield from _flatten(part)


def read_tasks(root: Path, info: dict[str, Any]) -> list[str]:
    """The instructions, by their index.

    Raises:
        DataError: the table is missing or damaged.
    """
    import pandas as pd

    old = str(info["codebase_version"]).startswith("v2.")
    path = root / "meta" / ("tasks.jsonl" if old else "tasks.parquet")
    if not path.is_file():
        raise DataError(f"{root}: has no meta/{path.name}")
    try:
        table = pd.read_json(path, lines=True).set_index("task") if old else pd.read_parquet(path)
        return [str(task) for task in table.sort_values("task_index").index]
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({path.name}: {error})") from error


def read_episodes(root: Path, info: dict[str, Any], every_column: bool) -> list[dict[str, Any]]:
    """The episode table, a row an episode: index and length, or every column but statistics.

    Raises:
        DataError: the table is missing or damaged.
    """
    import pyarrow.parquet as pq

    try:
        if str(info["codebase_version"]).startswith("v2."):
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
            table = pq.read_table(path, columns=names if every_column else _EPISODE)
            rows += table.to_pylist()
        return rows
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({error})") from error


_EPISODE = ["episode_index", "length"]


def read_rows(root: Path, vectors: Sequence[str]) -> dict[str, AnyArray]:
    """The needed columns of all data files, one after the other.

    Raises:
        DataError: a file or a column is missing, a file is damaged, or rows are ragged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted((root / "data").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{root}: has no data/*/*.parquet")
    tables = []
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            known = file.schema_arrow.names
            if missing := [c for c in (*vectors, *ROW_COLUMNS) if c not in known]:
                raise DataError(f"{path}: has no column {missing[0]!r}; it has {known}")
            tables.append(file.read(columns=[*vectors, *ROW_COLUMNS]))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: is truncated or not a parquet file ({error})") from error
    table = pa.concat_tables(tables)
    if table.num_rows == 0:
        raise DataError(f"{root}: the dataset is empty")
    rows: dict[str, AnyArray] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name not in vectors:
            rows[name] = column.to_numpy(zero_copy_only=False).reshape(-1)
            continue
        # A list column of equal lengths is its values, row by row.
        values = column.flatten() if hasattr(column, "flatten") else column
        if column.null_count or values.null_count or len(values) % table.num_rows:
            raise DataError(f"{root}: {name!r} has empty or ragged rows")
        rows[name] = values.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
    return rows


def check_episodes(
    root: Path, info: dict[str, Any], episodes: list[dict[str, Any]], episode_N: AnyArray
) -> IntArray:
    """Lengths of the episodes, once data, episode table and info agree on them.

    Raises:
        DataError: naming what contradicts what.
    """
    lengths = np.array([e["length"] for e in episodes], dtype=np.int64)
    if len(episodes) != info["total_episodes"]:
        raise DataError(
            f"{root}: meta/info.json claims {info['total_episodes']} episodes, "
            f"but meta/episodes lists {len(episodes)}"
        )
    listed = np.repeat(np.array([e["episode_index"] for e in episodes]), lengths)
    if len(listed) != len(episode_N):
        raise DataError(
            f"{root}: meta/episodes counts {len(listed)} frames, but the data have {len(episode_N)}"
        )
    if (wrong := np.nonzero(listed != episode_N)[0]).size:
        raise DataError(
            f"{root}: frame {wrong[0]} is of episode {episode_N[wrong[0]]} in the data, "
            f"but of episode {listed[wrong[0]]} in meta/episodes"
        )
    return lengths
