"""A study from end to end: killed, continued, and the same as an undisturbed one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from actionprior.cli import main
from actionprior.errors import UserError
from actionprior.study.grid import make_grid
from actionprior.study.jobs import Jobs
from actionprior.study.plan import Study
from actionprior.study.runs import Runs
from actionprior.study.table import ResultRow, read_table

PROJECT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from actionprior.cli import main; main()", "study"]
STUDY = {
    "stage1": {
        "recipe": "recipes/pretrain.yaml",
        "overrides": {
            "data.robots": ["panda"],
            "data.episodes_per_task": 2,
            "data.batch_size": 8,
            "trainer.max_steps": 3,
            "trainer.val_check_interval": 3,
            "trainer.log_every_n_steps": 1,
        },
    },
    "stage2": {
        "recipe": "recipes/finetune.yaml",
        "overrides": {
            "data.episodes_per_task": 2,
            "data.batch_size": 8,
            "trainer.callbacks.RolloutEvaluation.max_steps": 4,
        },
    },
    "ground": {"robots": ["panda"], "steps": 2, "samples": 64, "processes": 1},
    "evaluation": {"rollouts": 2, "validations": 2, "curve_every": 0.5, "curve_rollouts": 1},
    "priors": {"base": None},
    "arms": {
        "no_prior": {"prior": "base", "overrides": {"model.use_prior": False}},
        "prior": {"prior": "base"},
    },
    "cells": [
        {
            "arms": ["no_prior", "prior"],
            "seeds": [0],
            "demonstrations": [2],
            "steps": [6],
            "curve": True,
        }
    ],
}
NOT_OF_THE_CELL = {"latency_ms": 0.0, "stage1_seconds": 0.0, "stage2_seconds": 0.0, "revision": ""}


def comparable(rows: list[ResultRow]) -> list[tuple]:
    """Return the columns that depend on neither clock nor commit, with None for NaN."""
    still = [row._replace(**NOT_OF_THE_CELL) for row in rows]
    return [tuple(None if x != x else x for x in row) for row in still]


def run(folder: Path, *words: str) -> str:
    command = [*COMMAND, "--config=tiny.yaml", "--at_once=1", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_study_resumes_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "recipes", tmp_path / "recipes")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    out = tmp_path / "outputs" / "study"
    with (tmp_path / "killed.log").open("wb") as log:
        killed = subprocess.Popen(
            [*COMMAND, "--config=tiny.yaml", "--at_once=1"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 600
        while not (
            len(list(out.glob("cells/*/finished.json"))) == 1
            and len(list(out.glob("cells/*/attempt-*/recipe.yaml"))) == 2
        ):
            assert killed.poll() is None, (tmp_path / "killed.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(killed.pid, signal.SIGKILL)  # as a machine that goes down: the second cell, too
        killed.wait()
    (finished,) = out.glob("cells/*/finished.json")
    before = (finished.stat().st_mtime_ns, finished.read_bytes())
    output = run(tmp_path)
    assert "2 cells, 1 of them finished" in output
    assert output.count("$ lightning fit") == 1
    assert output.count("$ lightning") == 1
    assert (finished.stat().st_mtime_ns, finished.read_bytes()) == before
    result = json.loads(output.strip().splitlines()[-1].removeprefix("RESULT "))
    assert result["rich"]["rollouts"] == 2 * 2 * 4
    assert result["controls"]["met"] is None
    arms = {arm["arm"]: arm for arm in result["arms"]}
    assert all(arm["rollouts"] == 2 * 4 for arm in arms.values())
    assert arms["no_prior"]["difference"] is None
    assert arms["prior"]["difference"].keys() == {"value", "low", "high"}
    # Nothing is left to run; --report gives the same.
    rows = read_table(out / "tiny" / "results.parquet")
    assert "$ lightning" not in run(tmp_path, "--report")
    assert comparable(read_table(out / "tiny" / "results.csv")) == comparable(rows)
    assert {(r.step, r.rollouts) for r in rows if r.task} == {(3, 1), (6, 2)}
    assert all(r.revision and r.stage2_seconds > 0 for r in rows)
    # A table that was committed counts as finished.
    shutil.copytree(out / "tiny", tmp_path / "docs" / "study")
    output = run(tmp_path, "--out=fresh", "--page=docs/study.md")
    assert "2 cells, 2 of them finished" in output
    assert "$ lightning" not in output
    # Undisturbed, cell by cell as a SLURM array does it.
    assert run(tmp_path, "--cells").strip().splitlines()[-1] == "2"
    for number in (0, 1):
        run(tmp_path, "--out=array", f"--cell={number}")
    run(tmp_path, "--out=array", "--report")
    undisturbed = read_table(tmp_path / "array" / "tiny" / "results.parquet")
    assert comparable(undisturbed) == comparable(rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=none.yaml"], "none.yaml does not exist"),
        (["--config=tiny.yaml", "--report"], "no cell of tiny.yaml is finished"),
        (["--config=tiny.yaml", "--report", "--cells"], "exclude each other"),
        (["--config=tiny.yaml", "--cell=2"], "cell is 2, expected 0 to 1"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(PROJECT / "recipes", tmp_path / "recipes")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["study", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_equal_cells_share_one_run_whatever_their_arms_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs of an array have cells with the same run: one waits for the other."""
    shutil.copytree(PROJECT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    twice = {"also": {"prior": "base"}} | STUDY["arms"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY | {"arms": twice}))
    study = Study.read("tiny.yaml")
    prior, also = (replace(make_grid(study).cells[1], arm=arm) for arm in ("prior", "also"))
    inside, begun = threading.Event(), []

    def fit(_: Jobs, name: str, words: list[str]) -> bool:
        begun.append(name)
        inside.set()
        time.sleep(1.5)
        folder = Path(words[1].removeprefix("--config=")).parent
        assert folder.is_dir()  # it was not deleted
        return False

    monkeypatch.setattr(Jobs, "run", fit)
    out = tmp_path / "out"
    prior_file = out / "priors" / prior.prior.id / "prior.ckpt"
    prior_file.parent.mkdir(parents=True)
    prior_file.touch()
    with Jobs(out / "logs") as jobs:
        runs = [Runs(study, make_grid(study), out, set()) for _ in range(2)]
        jobs.submit(partial(runs[0]._cell, jobs, prior))
        assert inside.wait(30)
        jobs.submit(partial(runs[1]._cell, jobs, also))
        jobs.wait()
    assert len(begun) == 2


def test_a_job_that_waits_for_another_can_be_ended(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from functools import partial
from actionprior.study.jobs import Jobs
from actionprior.study.runs import Runs
from actionprior.study.grid import Grid

out = Path({str(tmp_path)!r})
runs = Runs(None, Grid([], "trunk"), out, set())
with Jobs(out / "logs") as jobs:
    jobs.submit(partial(runs._ground, jobs))
    print("waiting", flush=True)
    jobs.wait()
"""
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / "trunk-trunk.lock"):
        waiting = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"waiting\n"
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(20) == 128 + signal.SIGTERM


def test_a_failed_run_is_reported_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    grounding = threading.Event()

    def failing(self: Jobs, name: str, words: list[str]) -> bool:
        asked.append(words[0])
        if words[0] == "ground":
            grounding.set()
        elif words[0] == "prepare":
            assert grounding.wait(60)  # the trunk waits for no data
        raise UserError(f"{name} failed: no room")

    monkeypatch.setattr(Jobs, "run", failing)
    shutil.copytree(PROJECT / "recipes", tmp_path / "recipes")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["study", "--config=tiny.yaml", "--at_once=2"])
    errors = capsys.readouterr().err
    # Trunk and recordings fail at about the same time: either may be the first.
    first = r"error: 4 run\(s\) failed; the first: (trunk|prepare)-\w+ failed: no room"
    assert re.search(first, errors)
    assert asked.count("prepare") == 2
    assert asked.count("ground") == 1
    assert asked.count("fit") == 1  # the prior's cells do not start without it
