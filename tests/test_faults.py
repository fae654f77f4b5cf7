"""Test the trials of ``make faults``, at reduced counts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_runs_survive_kills_and_signals_and_damage_is_reported() -> None:
    words = ["--trials=1", "--flips=40", "--cuts=10", "--seed=7"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert len(result) == 26
    assert all(kind["lost"] == 0 for kind in result.values())
    assert all(
        kind["tried"] == kind["refused"] + kind["survived"] > 0
        for name, kind in result.items()
        if name in ("hostile names", "link loops", "bombs", "damaged descriptions")
    )
    assert sum(kind["tried"] for name, kind in result.items() if "killed" in name) > 2
