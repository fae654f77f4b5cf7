"""Read tables of metadata from parquet files, within bounds.

Rows that repeat take next to nothing in a parquet file, so a small file may hold any number.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionprior.data import DataError

MOST_ROWS = 1_000_000
"""Most episodes or instructions of a dataset."""
MOST_VALUES = 1000
"""Most values per row and column on average, such as instructions of an episode."""
MOST_CHARACTERS = 1 << 28
"""Most characters of all rows of a column."""
LONGEST_TEXT = 1 << 16
"""Most characters of an instruction."""


def read_metadata_table(path: Path, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401  pyarrow is untyped
    """Read a parquet file of metadata.

    Args:
        path: The file.
        columns: Columns to read; None: all except statistics (``stats/…``).

    Raises:
        DataError: The file has more rows, values or characters than a dataset can need.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, read_dictionary=_texts(path)) as file:
        footer, names = file.metadata, file.schema_arrow.names
        if footer.num_rows > MOST_ROWS:
            raise DataError(f"{path}: has {footer.num_rows} rows, expected at most {MOST_ROWS}")
        chosen = columns or [name for name in names if not name.startswith("stats/")]
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            for column in (group.column(i) for i in range(group.num_columns)):
                name = column.path_in_schema.partition(".")[0]
                if name in chosen and column.num_values > MOST_VALUES * max(1, group.num_rows):
                    raise DataError(
                        f"{path}: {name!r} has {column.num_values} values in {group.num_rows} "
                        f"rows, expected at most {MOST_VALUES} per row"
                    )
        table = file.read(columns=chosen, use_threads=False)
    for name in table.column_names:
        if pa.types.is_dictionary(table.schema.field(name).type):
            _check_characters(path, name, table[name])
    return table


def _texts(path: Path) -> list[str]:
    """List the columns of text, which are read without repeating equal ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    return [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]


def _check_characters(path: Path, name: str, column: Any) -> None:  # noqa: ANN401  pyarrow is untyped
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        if not isinstance(chunk, pa.DictionaryArray):
            continue
        try:
            lengths = pc.binary_length(chunk.dictionary)
        except pa.ArrowException:  # a dictionary of numbers
            return
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        if (longest := pc.max(lengths).as_py() or 0) > LONGEST_TEXT:
            raise DataError(
                f"{path}: {name!r} has a text of {longest} characters, expected at most "
                f"{LONGEST_TEXT}"
            )
    if total > MOST_CHARACTERS:
        raise DataError(f"{path}: {name!r} has {total} characters, expected at most 2^28")
