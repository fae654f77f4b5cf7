"""Read LeRobot datasets (v3.0, v2.1, v2.0) on disk with pyarrow, without images and videos.

lerobot itself takes ten CPU-seconds to import, and asks the hub for missing files. This module
reads what Stage 1 needs, and rejects damaged files with an error of one sentence.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.errors import shown
from actionprior.files.digest import digest
from actionprior.files.plain_json import JsonError, read_json, read_json_lines
from actionprior.recording.lerobot_writer import RECORDING
from data_modules.lerobot.metadata_tables import read_metadata_table
from data_modules.lerobot.named_files import file_below, is_leftover, walk_files

AnyArray = npt.NDArray[Any]

ROW_COLUMNS = ("episode_index", "timestamp", "task_index")
VERSIONS = ("v3.", "v2.1", "v2.0")
HIGHEST_FPS = 100_000
AT_ONCE = 1 << 16
"""Rows that are read at once, which limits memory for data files of any size."""


def read_info(root: Path) -> dict[str, Any]:
    """Read and check ``meta/info.json``.

    Raises:
        DataError: The file is missing or damaged, or the dataset is empty or of an unknown format
            version.
    """
    path = file_below(root, "meta/info.json")
    if not path.is_file():
        raise DataError(f"{root}: has no meta/info.json, so it is not a LeRobot dataset")
    try:
        info: dict[str, Any] = read_json(path)
        version, features, fps = info["codebase_version"], info["features"], float(info["fps"])
        info["fps"] = int(fps) if fps == int(fps) else fps
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        what = str(error) if isinstance(error, JsonError) else repr(error)
        raise DataError(f"{root}: meta/info.json is damaged or incomplete ({what})") from error
    if not str(version).startswith(VERSIONS):
        raise DataError(
            f"{root}: is a LeRobot {version} dataset, expected v3.0, v2.1 or v2.0; convert it with "
            "lerobot's scripts"
        )
    if not isinstance(features, dict) or not 0 < fps <= HIGHEST_FPS:
        raise DataError(
            f"{root}: meta/info.json has fps {fps} and features of type "
            f"{type(features).__name__}; expected an fps above 0 and at most {HIGHEST_FPS}, and a "
            "mapping of features"
        )
    for key, feature in features.items():
        if not isinstance(feature, dict):
            raise DataError(
                f"{root}: meta/info.json describes feature {key!r} as {shown(feature)}, expected a "
                "mapping with dtype and shape"
            )
        feature.setdefault("dtype", "")
        shape = feature.get("shape")
        if feature["dtype"] in ("image", "video") and not _is_image_shape(shape):
            raise DataError(
                f"{root}: meta/info.json has the shape {shown(shape)} of {key!r}, expected the "
                "rows, columns and channels of an image"
            )
    if not info.get("total_episodes") or not info.get("total_frames"):
        raise DataError(f"{root}: the dataset is empty (meta/info.json counts no episode or frame)")
    return info


def _is_image_shape(shape: object) -> bool:
    if not isinstance(shape, list) or len(shape) not in (2, 3):
        return False
    return all(type(n) is int and n > 0 for n in shape)


def is_old(info: dict[str, Any]) -> bool:
    """Return whether a dataset has format v2.1 or v2.0, which differ in their statistics only."""
    return str(info["codebase_version"]).startswith("v2.")


def was_disturbed(root: Path) -> bool:
    """Check whether ``lightning record`` or the suite disturbed the actions while recording.

    Raises:
        DataError: ``meta/recording.json`` is damaged.
    """
    path = file_below(root, RECORDING)
    if not path.is_file():
        return False
    try:
        about = read_json(path)
        noise, push = about.get("noise", 0), about.get("push", 0)
        sizes = push.values() if isinstance(push, dict) else [push]
        return any(size > 0 for size in (noise, *sizes))
    except (ValueError, AttributeError, TypeError) as error:
        what = str(error) if isinstance(error, JsonError) else repr(error)
        raise DataError(f"{root}: {RECORDING} is damaged ({what})") from error


def fingerprint(root: Path, folders: Sequence[str] = ("meta", "data")) -> str:
    """Hash the dataset's info, and names, sizes and times of the files in ``folders``."""
    content: list[str | bytes] = [(root / "meta" / "info.json").read_bytes()]
    for folder in folders:
        for path in sorted(walk_files(root, folder)):
            if not path.is_file():  # a broken link
                continue
            stat = path.stat()
            content.append(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}\n")
    return digest(*content)


def read_episodes(root: Path, info: dict[str, Any], every_column: bool) -> list[dict[str, Any]]:
    """Read the episode table, one row per episode.

    Args:
        root: Folder of the dataset.
        info: Content of ``meta/info.json``.
        every_column: True reads every column except statistics, False only index and length.

    Raises:
        DataError: The table is missing or damaged.
    """
    try:
        if is_old(info):
            path = file_below(root, "meta/episodes.jsonl")
            if not path.is_file():
                raise DataError(f"{root}: has no episode table meta/episodes.jsonl")
            rows = read_json_lines(path)
            return sorted(_checked(root, rows), key=lambda row: int(row["episode_index"]))
        paths = _tables(root, "meta/episodes")
        if not paths:
            raise DataError(f"{root}: has no episode table in meta/episodes")
        rows = []
        for path in paths:
            table = read_metadata_table(path, None if every_column else _EPISODE_COLUMNS)
            rows += table.to_pylist()
        return _checked(root, rows)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({error})") from error


_EPISODE_COLUMNS = ["episode_index", "length"]


def _checked(root: Path, rows: list[Any]) -> list[dict[str, Any]]:
    """Return the rows of the episode table with whole numbers as index and length.

    Raises:
        DataError: A row lacks one of them.
    """
    for number, row in enumerate(rows):
        for key, least in zip(_EPISODE_COLUMNS, (0, 1), strict=True):
            value = row.get(key) if isinstance(row, dict) else None
            if (whole := _whole(value, least)) is None:
                raise DataError(
                    f"{root}: row {number} of the episode table has {key} {shown(value)}, expected "
                    f"a whole number of at least {least}"
                )
            row[key] = whole
    return rows


def _whole(value: object, least: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if least <= value < 2**53 and value % 1 == 0 else None


def data_files(root: Path, widths: Mapping[str, int]) -> dict[Path, int]:
    """Count the frames of each data file, in order. Only the files' footers are read.

    Args:
        root: Folder of the dataset.
        widths: Entries per frame of each vector that is needed, by its name.

    Raises:
        DataError: A file or a column is missing, a file is damaged or holds vectors of another
            width, or the dataset is empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = _tables(root, "data")
    if not paths:
        raise DataError(f"{root}: has no data/*/*.parquet")
    counts = {}
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                known, counts[path] = file.schema_arrow.names, int(file.metadata.num_rows)
                _check_widths(path, file.metadata, widths)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        if missing := [c for c in (*widths, *ROW_COLUMNS) if c not in known]:
            raise DataError(
                f"{path}: has no column {missing[0]!r}; it has {known}; write the dataset again "
                "with LeRobot's tools, or with lightning convert"
            )
    if not any(counts.values()):
        raise DataError(f"{root}: the dataset is empty")
    return counts


def _check_widths(path: Path, footer: Any, widths: Mapping[str, int]) -> None:  # noqa: ANN401  pyarrow is untyped
    """Compare the numbers of a file with its rows: a small file may unpack to any size."""
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for column in (group.column(i) for i in range(group.num_columns)):
            width = widths.get(column.path_in_schema.partition(".")[0])
            if width is not None and column.num_values > max(1, width) * group.num_rows:
                raise DataError(
                    f"{path}: {column.path_in_schema.partition('.')[0]!r} has {column.num_values} "
                    f"numbers in {group.num_rows} rows, but meta/info.json says {width} per row"
                )


def _tables(root: Path, folder: str) -> list[Path]:
    """List the parquet files in the folders of a dataset's folder, without leftovers."""
    found = [p for p in sorted((root / folder).glob("*/*.parquet")) if not is_leftover(root, p)]
    return [file_below(root, str(path.relative_to(root))) for path in found]


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
    """Return a column's numbers, (N,) for ``ROW_COLUMNS`` and otherwise (N, D) for any nesting."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = batch.column(name)
    ragged = DataError(f"{path}: {name!r} has empty or ragged rows")
    while True:
        if isinstance(values.type, pa.BaseExtensionType):  # arrays of Hugging Face's datasets
            values = values.storage
        if values.null_count:
            raise ragged
        if not _is_list(values.type):
            break
        # A list column of equal lengths holds its values row by row.
        lengths = np.asarray(pc.list_value_length(values).to_numpy(zero_copy_only=False))
        if len(lengths) and (lengths != lengths[0]).any():
            raise ragged
        values = values.flatten()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{path}: {name!r} holds {values.type}, expected numbers")
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    if name not in ROW_COLUMNS:
        return array.reshape(batch.num_rows, -1)
    if array.size != batch.num_rows:
        raise ragged
    return array.reshape(-1)


def _is_list(kind: Any) -> bool:  # noqa: ANN401  pyarrow is untyped
    import pyarrow as pa

    tests = ("list", "large_list", "fixed_size_list")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


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
            f"but meta/episodes lists {len(episodes)}; if none is lost, correct total_episodes in "
            "meta/info.json"
        )
    if lengths.sum() != frames:
        raise DataError(
            f"{root}: meta/episodes counts {lengths.sum()} frames, but the files below data/ have "
            f"{frames}"
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
