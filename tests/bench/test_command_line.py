"""Benchmarks print their figures only, and leave the messages of what runs after them."""

import logging
import warnings

import pytest

from bench.command_line import run

LOG = logging.getLogger("lightning.pytorch")


def measure(fail: bool = False) -> None:
    """Say something twice.

    Args:
        fail: End with an error.
    """
    LOG.info("a note")
    warnings.warn("a warning", stacklevel=1)
    if fail:
        raise RuntimeError("as asked")
    print("RESULT {}")


def test_notes_are_hidden_while_a_benchmark_runs(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    level = LOG.level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(measure, "measure", [])
        with pytest.raises(RuntimeError, match="as asked"):
            run(measure, "measure", ["--fail=true"])
        assert not caught
        assert not caplog.records
        warnings.warn("after", stacklevel=1)
    assert [str(w.message) for w in caught] == ["after"]
    assert capsys.readouterr().out == "RESULT {}\n"
    assert LOG.level == level
