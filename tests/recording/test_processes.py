"""Recording by several processes: the same dataset, and errors as without them."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from actionprior.cli import main

WORDS = ["record", "--env=[test/PointCamera-v0, test/PointCamera-v0]", "--robot=point"]
WORDS += ["--import_modules=[tests.helpers.point_env]", "--action_names=[dx, dy]"]
WORDS += ["--observation_map.state=arm/state", "--observation_map.images={top: image}"]


def record(root: Path, expert: str, processes: int, *more: str) -> None:
    main(
        [
            *WORDS,
            f"--expert=tests.helpers.experts.{expert}",
            f"--out={root}",
            f"--num_processes={processes}",
            *more,
        ]
    )


def rows(root: Path) -> Any:
    files = sorted((root / "data").rglob("*.parquet"))
    return [pq.read_table(file).to_pylist() for file in files]


@pytest.mark.slow
def test_processes_record_what_one_process_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for processes in (1, 3):
        record(tmp_path / str(processes), "Sometimes", processes, "--episodes=5", "--noise=0.1")
        lines.append(capsys.readouterr().out.splitlines()[-1])
    assert lines[0] == lines[1]
    assert json.loads(lines[0].removeprefix("RESULT "))["tried"] > 5  # odd seeds fail
    assert rows(tmp_path / "1") == rows(tmp_path / "3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expert", "said"),
    [
        ("gets_lost", "the expert of 'test/Point"),
        ("Kills", "a process that records has ended (exit code -9)"),
    ],
)
def test_errors_of_processes_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expert: str, said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        record(tmp_path / "points", expert, 2, "--episodes=4")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "points").exists()


def test_the_number_of_processes_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        record(tmp_path / "points", "Walker", 0)
    assert "num_processes is 0; it must be at least 1" in capsys.readouterr().err
