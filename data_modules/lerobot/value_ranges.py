"""Lowest and highest value of each entry of a dataset's vectors, from what the dataset has."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from actionprior.data import DataError
from actionprior.files.plain_json import read_json, read_json_lines
from data_modules.lerobot.named_files import file_below
from data_modules.lerobot.names import feature_names, vector_width
from data_modules.lerobot.source import data_files, is_old, read_rows


class Range(NamedTuple):
    """Lowest and highest value."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        """Largest absolute value."""
        return max(abs(self.low), abs(self.high))


def value_ranges(root: Path, info: dict[str, Any], key: str) -> dict[str, Range]:
    """Return the range of each entry of a vector by its name.

    It is read from the statistics of the dataset (``meta/stats.json``, or those of the episodes in
    format v2.1), or else from the first data file. It is empty if nothing can be read.

    Raises:
        DataError: The vector has no shape, or is too long.
    """
    try:
        names = feature_names(info["features"][key])
    except DataError as error:
        raise DataError(f"{root}: {key!r}: {error}; correct it in the dataset") from error
    for read in (_from_statistics, _from_data):
        try:
            low, high = read(root, info, key)
            ranges = [Range(float(a), float(b)) for a, b in zip(low, high, strict=True)]
            if len(ranges) == len(names) and np.isfinite(ranges).all():
                return dict(zip(names, ranges, strict=True))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError):
            continue
    return {}


def _from_statistics(root: Path, info: dict[str, Any], key: str) -> tuple[Any, Any]:
    if not is_old(info) or file_below(root, "meta/stats.json").is_file():
        stats = read_json(file_below(root, "meta/stats.json"))[key]
        return np.ravel(stats["min"]), np.ravel(stats["max"])
    lines = read_json_lines(file_below(root, "meta/episodes_stats.jsonl"))
    stats = [line["stats"][key] for line in lines]
    low = np.min([np.ravel(s["min"]) for s in stats], axis=0)
    return low, np.max([np.ravel(s["max"]) for s in stats], axis=0)


def _from_data(root: Path, info: dict[str, Any], key: str) -> tuple[Any, Any]:
    first = next(iter(data_files(root, {key: vector_width(info["features"][key])})))
    values_ND = next(iter(read_rows(first, [key])))[key].astype(np.float64)
    return values_ND.min(axis=0), values_ND.max(axis=0)
