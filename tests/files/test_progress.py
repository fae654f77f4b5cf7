"""Test that long work writes few lines into a log file."""

import pytest

from actionprior.files.progress import episode_bar


def test_a_log_file_gets_few_reports(capsys: pytest.CaptureFixture[str]) -> None:
    with episode_bar("recording", 500) as bar:
        for _ in range(500):
            bar.update()
    said = capsys.readouterr().err
    assert "recording: 100%" in said
    assert "500/500" in said
    assert said.count("\r") + said.count("\n") <= 5


def test_hidden_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with episode_bar("recording", 2, hidden=True) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
