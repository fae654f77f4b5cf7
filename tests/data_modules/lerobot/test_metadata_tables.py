"""Tables of metadata are read within bounds, whatever a small file unpacks to."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actionprior.data import DataError
from data_modules.lerobot import metadata_tables
from data_modules.lerobot.metadata_tables import read_metadata_table


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


def test_texts_and_numbers_are_read_as_they_are(tmp_path: Path) -> None:
    texts = ["push", None, "push", "é"]
    path = write(tmp_path / "a.parquet", task=texts, index=[0, 1, 2, 3], **{"stats/x": [0.0] * 4})
    table = read_metadata_table(path)
    assert table.column_names == ["task", "index"]
    assert table.to_pydict() == {"task": texts, "index": [0, 1, 2, 3]}
    assert read_metadata_table(path, ["index"]).column_names == ["index"]


def test_rows_values_and_characters_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = metadata_tables.MOST_ROWS + 1
    path = write(tmp_path / "rows.parquet", index=np.zeros(rows, np.int64))
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"rows\.parquet: has 1000001 rows, expected at most"):
        read_metadata_table(path)
    path = write(tmp_path / "values.parquet", tasks=pa.array([[0] * 3000, [0]]))
    with pytest.raises(DataError, match=r"'tasks' has 3001 values in 2 rows"):
        read_metadata_table(path)
    long = pa.array(["x" * 1000]).take(pa.array(np.zeros(1000, np.int64)))
    path = write(tmp_path / "texts.parquet", task=long)
    assert path.stat().st_size < 10_000
    assert read_metadata_table(path).num_rows == 1000
    one = write(tmp_path / "one.parquet", task=["x" * 70_000])
    with pytest.raises(DataError, match=r"'task' has a text of 70000 characters"):
        read_metadata_table(one)
    monkeypatch.setattr(metadata_tables, "MOST_CHARACTERS", 10**5)
    with pytest.raises(DataError, match=r"'task' has 1000000 characters"):
        read_metadata_table(path)
