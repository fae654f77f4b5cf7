"""The job script on a real SLURM: a job that ends early is requeued and resumes exactly."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback, Trainer

from actionprior.checkpoints.reading import read_checkpoint
from tests.helpers import slurm

ROOT = Path(__file__).parents[2]
STEPS = 12


class Slowly(Callback):
    """Slow steps, whose losses are written to a file per rank."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        pid = Path(trainer.default_root_dir) / f"pid{trainer.global_rank}"
        pid.write_text(str(os.getpid()))

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        time.sleep(self.seconds)
        row = [trainer.global_step, float(trainer.callback_metrics["train/loss"])]
        rows = Path(trainer.default_root_dir) / f"rank{trainer.global_rank}"
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")


def recipe(folder: Path, seconds: float) -> str:
    """Write a recipe of a tiny Stage 1."""
    callbacks = [
        {"class_path": f"{__name__}.Slowly", "init_args": {"seconds": seconds}},
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"filename": "{step}", "every_n_train_steps": STEPS // 3},
        },
    ]
    content = {
        "model": {
            "class_path": "actionprior.MotionPriorModule",
            "init_args": {"architecture": {"width": 32, "latent_width": 16, "heads": 2}},
        },
        "data": {
            "class_path": "tests.helpers.synthetic.ToyTrajectories",
            "init_args": {"episodes": 6},
        },
        "trainer": {"max_steps": STEPS, "limit_val_batches": 0, "callbacks": callbacks},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "recipe.yaml")


def submit(environment: dict[str, str], folder: Path, *recipe_and_more: str) -> str:
    """Submit ``examples/slurm/train.sbatch`` on two CPU processes, and return the job's number."""
    node = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"]
    options = ["--parsable", *node, f"--output={folder}/job.log"]
    words = ["sbatch", *options, "examples/slurm/train.sbatch", *recipe_and_more]
    words += ["--trainer.accelerator=cpu", "--trainer.precision=32"]
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment = environment | {"PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def rows(folder: Path, rank: int) -> list[list[float]]:
    file = folder / f"rank{rank}"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
@pytest.mark.skipif(bool(slurm.MISSING), reason=f"not here: {', '.join(slurm.MISSING)}")
def test_a_job_that_is_ended_or_killed_is_requeued_and_ends_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    whole, asked, killed = (tmp_path / name for name in ("whole", "asked", "killed"))
    for folder in (whole, asked, killed):
        folder.mkdir()
    with slurm.cluster(tmp_path / "slurm") as environment:
        ask = partial(slurm.ask, environment)

        def steps(job: str, folder: Path, count: int) -> None:
            slurm.wait(slurm.started(ask, job, lambda: len(rows(folder, 0)) >= count), 120)

        def end(job: str) -> None:
            slurm.wait(slurm.started(ask, job, lambda: slurm.state(ask, job) == "COMPLETED"), 120)

        def go_on(job: str, folder: Path) -> None:
            slurm.wait(lambda: slurm.state(ask, job) == "PENDING", 60)
            (folder / "recipe.yaml").write_text(Path(recipe(whole, 0.0)).read_text())
            end(job)

        job = submit(environment, asked, recipe(asked, 0.5), str(asked))
        steps(job, asked, 3)
        ask("scancel", "--signal=USR1", job)  # as SLURM near the time limit
        slurm.wait(lambda: list(asked.glob("hpc_ckpt_*.ckpt")), 60)
        [saved] = asked.glob("hpc_ckpt_*.ckpt")
        stopped_at = read_checkpoint(saved)["global_step"]
        assert 3 <= stopped_at < STEPS
        go_on(job, asked)

        job = submit(environment, killed, recipe(killed, 0.5), str(killed))
        steps(job, killed, 6)
        os.kill(int((killed / "pid1").read_text()), signal.SIGKILL)
        go_on(job, killed)

        end(submit(environment, whole, recipe(whole, 0.0), str(whole)))
    for rank in range(2):
        done = [int(step) for step, _ in rows(asked, rank)]
        assert done == list(range(1, STEPS + 1)), "none twice, none left out"
        assert rows(asked, rank) == rows(whole, rank)
        again = {int(step): loss for step, loss in rows(killed, rank)}
        assert len(rows(killed, rank)) > STEPS, "some steps twice, after the last checkpoint"
        assert sorted(map(list, again.items())) == rows(whole, rank)
    expected = ended_with(whole)
    for folder in (asked, killed):
        for key, value in ended_with(folder).items():
            assert torch.equal(expected[key], value), key


def ended_with(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = read_checkpoint(next(folder.rglob(f"*step={STEPS}*.ckpt")))[
        "state_dict"
    ]
    return weights
