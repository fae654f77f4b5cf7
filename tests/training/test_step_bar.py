"""Test that the bar shows steps, loss and speed, in a terminal and in a file."""

import re
from pathlib import Path

import pytest

from actionprior.training import step_bar
from actionprior.training.step_bar import StepBar
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


def run(folder: Path, steps: int, bar: StepBar) -> None:
    data = ToyTrajectories(episodes=6, batch_size=16)
    options = {"enable_progress_bar": True, "limit_val_batches": 0, "callbacks": [bar]}
    trainer(folder, steps, **options).fit(module(data), data)


def test_a_file_gets_some_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 45, StepBar())  # epochs of 12 batches
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == 23
    for line in lines:
        assert re.fullmatch(r"step \d+/45  train/loss \d\S*  \d+\.\d\d steps/s", line), line
    assert lines[-1].startswith("step 45/45  ")


def test_a_terminal_gets_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_bar.sys.stderr, "isatty", lambda: True)
    run(tmp_path, 9, StepBar())
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "9/9" in last
    assert "train/loss" in last
    assert "steps/s" in last


def test_other_ranks_show_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = StepBar()
    bar.disable()
    run(tmp_path, 3, bar)
    assert "step 1/3" not in capsys.readouterr().err
