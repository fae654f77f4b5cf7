"""Test that instructions are read as texts, from every form in which writers store them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actionprior.data import DataError
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.tasks import read_tasks
from tests.helpers.datasets import arm

NEW, OLD = {"codebase_version": "v3.0"}, {"codebase_version": "v2.1"}
TEXTS = ["open the drawer", "001"]
EXPECTED = {0: "001", 4: "open the drawer"}


def table(**columns: Any) -> pa.Table:
    return pa.table({"task_index": [4, 0], **columns})


FORMS: dict[str, Any] = {
    "named index": pd.DataFrame({"task_index": [4, 0]}, index=pd.Index(TEXTS, name="task")),
    "index without a name": pd.DataFrame({"task_index": [4, 0]}, index=TEXTS),
    "index of another name": pd.DataFrame({"task_index": [4, 0]}, index=TEXTS).rename_axis("tasks"),
    "column": pd.DataFrame({"task_index": [4, 0], "task": TEXTS}),
    "column tasks": pd.DataFrame({"task_index": [4, 0], "tasks": TEXTS}),
    "column beside a stored index": pd.DataFrame({"task_index": [4, 0], "task": TEXTS}, [8, 3]),
    "index of numbers": pd.DataFrame({"task": TEXTS}, pd.Index([4, 0], name="task_index")),
    "no pandas": table(task=TEXTS),
    "float indices": pa.table({"task_index": [4.0, 0.0], "task": TEXTS}),
    "small integers": pa.table({"task_index": pa.array([4, 0], pa.uint8()), "task": TEXTS}),
    "dictionary": table(task=pa.array(TEXTS).dictionary_encode()),
    "large strings": table(task=pa.array(TEXTS, pa.large_string())),
    "bytes": table(task=pa.array([t.encode() for t in TEXTS])),
    "further columns": table(comment=["a", "b"], task=TEXTS, skill=[1, 2]),
}


def write(root: Path, content: Any) -> Path:
    (root / "meta").mkdir(parents=True, exist_ok=True)
    path = root / "meta" / "tasks.parquet"
    content.to_parquet(path) if isinstance(content, pd.DataFrame) else pq.write_table(content, path)
    return root


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_table_gives_the_texts(form: str, tmp_path: Path) -> None:
    assert read_tasks(write(tmp_path, FORMS[form]), NEW) == EXPECTED
    assert list(read_tasks(tmp_path, NEW)) == [0, 4]


REFUSED: dict[str, tuple[Any, str]] = {
    "numbers": (table(task=[1, 2]), "no column of instructions.*'task: int64'"),
    "no texts": (pd.DataFrame({"task_index": [0]}), "no column of instructions"),
    "no index": (pa.table({"task": TEXTS}), r"no column 'task_index'; it has \['task'\]"),
    "null text": (table(task=["a", None]), "row task_index 0, task None; expected a whole"),
    "null index": (pa.table({"task_index": [0, None], "task": TEXTS}), "task_index None"),
    "fraction": (pa.table({"task_index": [0.5, 1], "task": TEXTS}), "task_index 0.5"),
    "NaN": (pa.table({"task_index": [0, np.nan], "task": TEXTS}), "task_index nan"),
    "text index": (pa.table({"task_index": ["0", "1"], "task": TEXTS}), "task_index '0'"),
    "no UTF-8": (table(task=[b"a", b"\xff"]), r"task b'\\xff'; expected a whole number and a text"),
    "twice": (
        pa.table({"task_index": [1, 1], "task": TEXTS}),
        "task_index 1 stands for 'open the drawer' and for '001'",
    ),
    "lists": (table(task=[["a"], ["b"]]), "no column of instructions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_text_is_refused(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as error:
        read_tasks(write(tmp_path, content), NEW)
    assert "\n" not in str(error.value)
    assert "tasks.parquet" in str(error.value)


def lines(root: Path, *rows: object) -> Path:
    (root / "meta").mkdir(parents=True, exist_ok=True)
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
    (root / "meta" / "tasks.jsonl").write_text(text, "utf-8")
    return root


def test_json_lines_keep_their_texts(tmp_path: Path) -> None:
    texts = ["001", "2024-01-31", "把红色方块放到盘子里", "1e5"]
    rows = [{"task_index": i, "task": text} for i, text in enumerate(texts)]
    assert list(read_tasks(lines(tmp_path, *rows, ""), OLD).values()) == texts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task_index": 0, "task": 1}, "task_index 0, task 1; expected"),
        ({"task_index": True, "task": "a"}, "task_index True"),
        ({"task_index": 0, "task": None}, "task None"),
        ({"task": "a"}, "row 2 is .*expected an object"),
        ([0, "a"], "row 2 is"),
        ('{"task_index": 0', r"the metadata cannot be read \(tasks\.jsonl"),
        ({"task_index": 7, "task": "b"}, "task_index 7 stands for 'a' and for 'b'"),
    ],
)
def test_json_lines_of_another_kind_are_refused(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_tasks(lines(tmp_path, {"task_index": 7, "task": "a"}, row), OLD)


def test_a_policy_gets_the_texts_of_a_column(plain: Path, tmp_path: Path) -> None:
    expected = read_columns(plain, arm()).tasks_E
    root = Path(shutil.copytree(plain, tmp_path / "column"))
    indexed = pd.read_parquet(root / "meta" / "tasks.parquet")
    write(root, indexed.rename_axis("task").reset_index())
    assert read_columns(root, arm()).tasks_E == expected
