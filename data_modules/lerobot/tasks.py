"""Read the instructions of a LeRobot dataset, in every form in which writers store them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actionprior.data import DataError
from actionprior.errors import shown
from actionprior.files.plain_json import read_json_lines
from data_modules.lerobot.metadata_tables import read_metadata_table
from data_modules.lerobot.named_files import file_below
from data_modules.lerobot.source import is_old

INDEX = "task_index"
TEXT = ("task", "tasks", "__index_level_0__")
"""Columns of ``meta/tasks.parquet`` that may hold the instructions, best first.

pandas writes an index without a name as ``__index_level_0__``."""


def read_tasks(root: Path, info: dict[str, Any]) -> dict[int, str]:
    """Read the instructions by their ``task_index``, in ascending order.

    Raises:
        DataError: The table is missing or damaged, an instruction is no text, or an index stands
            twice.
    """
    path = file_below(root, f"meta/tasks.{'jsonl' if is_old(info) else 'parquet'}")
    if not path.is_file():
        raise DataError(f"{root}: has no meta/{path.name}")
    try:
        rows = _json_rows(path) if is_old(info) else _parquet_rows(path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({path.name}: {error})") from error
    tasks: dict[int, str] = {}
    for found_index, found_text in rows:
        index, text = _whole(found_index), _text(found_text)
        if index is None or text is None:
            raise DataError(
                f"{path}: has the row task_index {shown(found_index)}, task {shown(found_text)}; "
                "expected a whole number and a text"
            )
        if index in tasks:
            raise DataError(
                f"{path}: task_index {index} stands for {shown(tasks[index])} and for "
                f"{shown(text)}; give each instruction its own index"
            )
        tasks[index] = text
    return dict(sorted(tasks.items()))


def _json_rows(path: Path) -> list[tuple[object, object]]:
    # Not pandas, which reads the text "001" as the number 1.
    rows = []
    for number, row in enumerate(read_json_lines(path), 1):
        if not isinstance(row, dict) or not {INDEX, "task"} <= set(row):
            raise DataError(
                f"{path}: row {number} is {shown(row, 80)}; expected an object with {INDEX!r} and "
                "'task'"
            )
        rows.append((row[INDEX], row["task"]))
    return rows


def _parquet_rows(path: Path) -> Iterable[tuple[object, object]]:
    # Columns as they are in the file, so that it does not matter which one pandas made the index.
    table = read_metadata_table(path)
    names = table.column_names
    if INDEX not in names:
        raise DataError(f"{path}: has no column {INDEX!r}; it has {names}")
    texts = [n for n in TEXT if n in names and _holds_text(table.schema.field(n).type)]
    if not texts:
        raise DataError(
            f"{path}: has no column of instructions; expected texts in 'task' (column or pandas "
            f"index), found {[f'{field.name}: {field.type}' for field in table.schema]}"
        )
    return zip(table[INDEX].to_pylist(), table[texts[0]].to_pylist(), strict=True)


def _holds_text(kind: Any) -> bool:  # noqa: ANN401  pyarrow is untyped
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return any(getattr(pa.types, f"is_{name}")(value) for name in tests)


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if float(value).is_integer() else None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None
