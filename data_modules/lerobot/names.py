"""Names of the entries of a dataset's vectors, in every form in which writers store them."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from actionprior.data import DataError
from actionprior.errors import shown

MOST_ENTRIES = 65_536
"""Most entries of an action or state in a dataset. Each has a name, so more would fill memory."""


def vector_width(feature: dict[str, Any]) -> int:
    """Return the number of a vector's entries by its shape.

    Raises:
        DataError: It has more than ``MOST_ENTRIES``, or the shape is no list of whole numbers.
    """
    shape = feature.get("shape")
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise DataError(f"meta/info.json has the shape {shown(shape)}, expected whole numbers")
    width = math.prod(shape)
    if width > MOST_ENTRIES:
        raise DataError(
            f"meta/info.json has a vector of shape {shown(shape)}, which is {width} numbers per "
            f"frame; at most {MOST_ENTRIES} are read as an action or state"
        )
    return width


def feature_names(feature: dict[str, Any]) -> list[str]:
    """Return the names of a vector's entries, each once.

    They are "0", "1", … if the dataset names none, or only the whole vector. If parts of the
    vector share names, the parts' names are prepended: ``left.j0``. A name that still stands twice
    is numbered: ``grip`` and ``grip_2``.

    Raises:
        DataError: The vector is too long, see ``vector_width``.
    """
    width = vector_width(feature)
    parts = list(_flatten(feature.get("names"), ""))
    flat = [name for _, name in parts]
    if len(set(flat)) < len(flat):
        flat = _numbered([f"{part}{name}" for part, name in parts])
    return flat if flat and (len(flat) > 1 or width == 1) else [str(i) for i in range(width)]


def has_names(feature: dict[str, Any]) -> bool:
    """Return whether the dataset names the vector's entries."""
    return feature_names(feature) != [str(i) for i in range(vector_width(feature))]


def _flatten(names: Any, part: str) -> Iterable[tuple[str, str]]:  # noqa: ANN401  any nesting of lists and dicts
    """Yield each name with the keys that lead to it; numbers and nulls are no names."""
    if isinstance(names, str):
        yield part, names
    elif isinstance(names, dict):
        if names and all(_is_index(index) for index in names.values()):
            yield from ((part, name) for name in sorted(names, key=lambda n: float(names[n])))
            return
        for key, inner in names.items():
            yield from _flatten(inner, f"{part}{key}.")
    elif isinstance(names, list | tuple):
        for inner in names:
            yield from _flatten(inner, part)


def _is_index(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _numbered(names: list[str]) -> list[str]:
    seen, taken, result = Counter[str](), set(names), []
    for name in names:
        seen[name] += 1
        unique = name
        while seen[name] > 1 and unique in taken:
            unique = f"{name}_{seen[name]}"
            seen[name] += unique in taken
        taken.add(unique)
        result.append(unique)
    return result
