"""A results table from somebody else is checked when it is read."""

from pathlib import Path

import pandas as pd
import pytest

from actionprior.study.recipe import StudyError
from actionprior.study.table import ResultRow, paired, read_table, write_table

KINDS = {str: "x", int: 3, float: 0.5}
ROW = ResultRow(**{name: KINDS[kind] for name, kind in ResultRow.__annotations__.items()})
ROW = ROW._replace(outcomes="0110", rollouts=4, successes=2)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    write_table([ROW, ROW._replace(task="", mae=float("nan"))], tmp_path / "t")
    first, second = read_table(tmp_path / f"t{suffix}")
    assert first == ROW
    assert (second.task, second.mae == second.mae) == ("", False)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("seed", 0.5),
        ("seed", -1),
        ("steps", None),
        ("outcomes", "01x"),
        ("mae", "much"),
        ("arm", 3),
        ("task", "a\nb"),
        ("robot", "\x1b[2Jarm"),
        ("unit", "<script>"),
        ("group", "arm | leg"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, column: str, value: object) -> None:
    frame = pd.DataFrame([ROW], columns=list(ResultRow._fields)).astype({column: object})
    frame[column] = [value]
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    with pytest.raises(StudyError, match=rf"t\.parquet: row 0 has {column} ") as error:
        read_table(tmp_path / "t.parquet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\0no table")
    with pytest.raises(StudyError, match=r"cannot be read as a table|lacks the columns"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("changes", [{"successes": 3}, {"rollouts": 5}, {"outcomes": "01100"}])
def test_counts_that_contradict_the_outcomes_are_refused(
    tmp_path: Path, changes: dict[str, int]
) -> None:
    write_table([ROW, ROW._replace(**changes)], tmp_path / "t")
    with pytest.raises(StudyError, match=r"row 1 has rollouts . and successes ., but its outcomes"):
        read_table(tmp_path / "t.parquet")


def test_pairs_name_the_arms_and_their_scenes() -> None:
    other = ROW._replace(arm="y", first_scene=9)
    with pytest.raises(StudyError, match=r"arm 'x', seed 3: scenes from 3; arm 'y', .* from 9"):
        paired([[ROW], [other]])
