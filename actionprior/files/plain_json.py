"""JSON files from others: read in bounded memory and depth, or refused in one sentence."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actionprior.errors import UserError, shorten

MOST_BYTES = 1 << 28
"""Size above which a JSON file is not read [bytes]."""
MOST_DEPTH = 64
"""Deepest nesting of lists and objects. Deeper data overflow the stack of whoever walks them."""


class JsonError(UserError):
    """A JSON file is missing, damaged, or nested too deeply; the message names it."""


def read_json(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """Read a JSON file in UTF-8.

    Raises:
        JsonError: The file is no regular file, cannot be read, is not JSON, or is too large or
            nested too deeply.
    """
    return parse_json(_text(path), path)


def read_json_lines(path: Path) -> list[Any]:
    """Read a file with JSON in each line; empty lines are left out.

    Raises:
        JsonError: As :func:`read_json`.
    """
    return [parse_json(line, path) for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise JsonError(f"{path} is missing, or is no file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise JsonError(f"{path} has {size} bytes; a JSON file of at most {MOST_BYTES} is read")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JsonError(f"{path} cannot be read as JSON ({shorten(error)})") from None


def parse_json(text: str, place: object) -> Any:  # noqa: ANN401  whatever the text holds
    """Read JSON from a text.

    Args:
        text: JSON of any kind.
        place: Where the text stands, for messages.

    Raises:
        JsonError: It is not JSON, or is nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(place) from None
    except ValueError as error:
        raise JsonError(f"{place} cannot be read as JSON ({shorten(error)})") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise _too_deep(place)


def _inside(value: Any) -> Iterable[Any]:  # noqa: ANN401  any JSON
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep(place: object) -> JsonError:
    return JsonError(f"{place} is nested more than {MOST_DEPTH} levels deep, which is damaged JSON")
