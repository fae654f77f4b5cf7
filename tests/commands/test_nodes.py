"""The documented ``torchrun`` command on two hosts: equal learning, and resuming after faults."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback, Trainer

from actionprior.checkpoints.reading import read_checkpoint
from actionprior.motion_prior import MotionPriorModule
from actionprior.training.flow_noise import FlowNoise
from tests.faults import equal
from tests.helpers import hosts, slurm
from tests.helpers.hosts import Host
from tests.helpers.ranks_vla import OneDraw
from tests.helpers.synthetic import ToyTrajectories

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/cluster.md"
STEPS, GLOBAL_BATCH = 14, 16  # into the second epoch
TIMEOUT = 12  # seconds; also what one rank may start later than the other
ENDED = "error: another process of this run has ended or hangs ("
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{slurm.PATH}",
    "PYTHONPATH": str(ROOT),
}
ON_CPUS = ["--trainer.accelerator=cpu", "--trainer.precision=32"]
NEEDS_HOSTS = pytest.mark.skipif(
    bool(hosts.MISSING), reason=f"not here: {', '.join(hosts.MISSING)}"
)


class SameEverywhere(MotionPriorModule):
    """Stage 1 whose loss depends only on the global batch."""

    def noise(self, batch_idx: int) -> FlowNoise:
        return OneDraw(self.global_step)


class Data(ToyTrajectories):
    """Data with a batch size that a recipe can set."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(episodes=6, batch_size=batch_size)


class Rows(Callback):
    """Write each step's loss to a file per rank, and wait at the steps that the test names."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        row = [trainer.global_step, float(trainer.callback_metrics["train/loss"])]
        with (self.folder / f"rank{trainer.global_rank}").open("a") as file:
            file.write(json.dumps(row) + "\n")
        time.sleep(0.5 * (self.folder / "slow").exists())
        while (self.folder / f"hold{trainer.global_step}").exists():
            time.sleep(0.05)


class Run:
    """A tiny run of Stage 1 in a separate folder, with the losses that its ranks write."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.root, self.rows = folder / "run", folder / "rows"
        for place in (self.root, self.rows):
            place.mkdir(parents=True)
        keep = {"filename": "{step}", "every_n_train_steps": 2}
        callbacks = [
            {"class_path": f"{__name__}.Rows", "init_args": {"folder": str(self.rows)}},
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": keep},
        ]
        small = {"width": 32, "latent_width": 16, "heads": 2}
        recipe = {
            "model": {
                "class_path": f"{__name__}.SameEverywhere",
                "init_args": {"architecture": small, "optimizer": {"warmup_steps": 5}},
            },
            "data": {
                "class_path": f"{__name__}.Data",
                "init_args": {"batch_size": GLOBAL_BATCH // processes},
            },
            "trainer": {"max_steps": STEPS, "limit_val_batches": 0, "callbacks": callbacks},
        }
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(recipe))

    def start(self, host: Host, timeout: int = 59) -> subprocess.Popen[bytes]:
        """Start the command of docs/cluster.md on a host; :meth:`log` has its output."""
        [command] = re.findall(r"^torchrun.*?last$", PAGE.read_text("utf-8"), re.M | re.S)
        for documented, here in {
            "HOST:": "host0:",
            "--nproc-per-node 8": "--nproc-per-node 1",
            "recipes/pretrain.yaml": str(self.recipe),
            "runs/prior": str(self.root),
        }.items():
            assert documented in command
            command = command.replace(documented, here)
        bound = f"--trainer.strategy.init_args.timeout=0:00:{timeout}"
        words = ["sh", "-c", f'exec {command} "$@"', "sh", *ON_CPUS, bound]
        log = self.root.parent / f"{host.name}.log"
        return host.start(*words, log=log, env=ENVIRONMENT)

    def log(self, host: Host) -> str:
        return (self.root.parent / f"{host.name}.log").read_text()

    def losses(self, rank: int) -> dict[int, float]:
        """Return a rank's losses by step; a repeated step must have given the same loss."""
        file = self.rows / f"rank{rank}"
        losses: dict[int, float] = {}
        for line in file.read_text().splitlines() if file.exists() else []:
            step, loss = json.loads(line)
            assert losses.setdefault(step, loss) == loss
        return losses

    def checkpoint(self) -> dict[str, Any]:
        """Read the last checkpoint."""
        [last] = self.root.rglob(f"*step={STEPS}*.ckpt")
        return read_checkpoint(last)

    def must_end_as(self, other: "Run") -> None:
        """Bit for bit."""
        for rank in range(2):
            assert list(self.losses(rank)) == list(range(1, STEPS + 1))
            assert self.losses(rank) == other.losses(rank)
        found, expected = self.checkpoint(), other.checkpoint()
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
            assert equal(found[key], expected[key]), key


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    with hosts.two_hosts(tmp_path_factory.mktemp("hosts")) as pair:
        yield pair


@pytest.fixture(scope="module")
def whole(two: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run on two hosts without faults; the second host cannot write to the run's folder."""
    run = Run(tmp_path_factory.mktemp("whole"), 2)
    read_only = ["mount", "--bind", "-o", "ro", str(run.root), str(run.root)]
    subprocess.run(two[1].words(*read_only), check=True)
    for job in [run.start(host) for host in two]:
        assert job.wait(120) == 0, run.log(two[0]) + run.log(two[1])
    return run


@NEEDS_HOSTS
@pytest.mark.slow
def test_two_hosts_learn_what_one_process_learns(whole: Run, tmp_path: Path) -> None:
    single = Run(tmp_path, 1)
    words = ["lightning", "fit", f"--config={single.recipe}", "--trainer.accelerator=cpu"]
    words += [f"--trainer.default_root_dir={single.root}"]
    subprocess.run(words, check=True, timeout=120, cwd=ROOT, env=ENVIRONMENT)
    losses = [whole.losses(rank) for rank in range(2)]
    mean = [np.mean([by_step[step] for by_step in losses]) for step in range(1, STEPS + 1)]
    expected = list(single.losses(0).values())
    np.testing.assert_allclose(mean, expected, rtol=2e-4)
    for key, value in single.checkpoint()["state_dict"].items():
        torch.testing.assert_close(whole.checkpoint()["state_dict"][key], value, rtol=0, atol=2e-4)


@NEEDS_HOSTS
@pytest.mark.slow
def test_a_fault_on_one_host_ends_the_other_and_the_same_command_resumes_exactly(
    two: tuple[Host, Host], whole: Run, tmp_path: Path
) -> None:
    run, (first, second) = Run(tmp_path, 2), two

    def until(step: int, fault: Callable[[], None], survivors: Sequence[Host]) -> None:
        hold = run.rows / f"hold{step}"
        hold.touch()
        jobs = {host: run.start(host, TIMEOUT) for host in two}
        slurm.wait(lambda: all(step in run.losses(rank) for rank in range(2)), 90)
        said = {host: len(run.log(host)) for host in two}
        fault()
        hold.unlink()
        for host in survivors:
            assert jobs[host].wait(TIMEOUT + 50) != 0
            assert run.log(host)[said[host] :].count(ENDED) == 1, run.log(host)
        for job in jobs.values():
            job.wait(30)

    until(3, first.kill, [second])  # rank 0, which is also the rendezvous of torchrun
    until(9, lambda: second.set_link("down"), two)
    second.set_link("up")
    jobs = [run.start(host) for host in two]
    assert [job.wait(120) for job in jobs] == [0, 0]
    run.must_end_as(whole)


@NEEDS_HOSTS
@pytest.mark.skipif(bool(slurm.MISSING), reason=f"not here: {', '.join(slurm.MISSING)}")
@pytest.mark.slow
def test_slurm_on_two_hosts_requeues_a_job_which_ends_as_torchruns_does(
    whole: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path, 2)
    (run.rows / "slow").touch()
    names = hosts.two_hosts(tmp_path, own_name_is="127.0.1.1")
    with names as two, slurm.cluster(tmp_path / "slurm", two) as environment:
        environment |= {k: ENVIRONMENT[k] for k in ("PATH", "PYTHONPATH")}
        environment["GLOO_SOCKET_IFNAME"] = hosts.INTERFACE

        def ask(*words: str) -> str:
            return slurm.ask(environment, *two[0].words(*words))

        options = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1"]
        options += ["--parsable", f"--output={tmp_path}/job.log", "examples/slurm/train.sbatch"]
        job = ask("sbatch", *options, str(run.recipe), str(run.root), *ON_CPUS)
        slurm.wait(slurm.started(ask, job, lambda: 3 in run.losses(0)), 120)
        hosts_of_job = ask("squeue", "-h", "-o", "%N", "-j", job)
        assert hosts_of_job == "host[0-1]"
        ask("scancel", "--signal=USR1", job)  # as SLURM near the time limit
        slurm.wait(lambda: slurm.state(ask, job) == "PENDING", 60)
        [saved] = run.root.glob("hpc_ckpt_*.ckpt")
        assert 3 <= read_checkpoint(saved)["global_step"] < STEPS
        (run.rows / "slow").unlink()
        slurm.wait(slurm.started(ask, job, lambda: slurm.state(ask, job) == "COMPLETED"), 120)
    run.must_end_as(whole)
