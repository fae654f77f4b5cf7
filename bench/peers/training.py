"""Train one policy by its own command for a given CPU time, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from actionprior.errors import UserError
from bench.peers.contenders import Contender

POLICY = "checkpoints/last/pretrained_model"
CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"
ROLLOUTS = "callbacks.RolloutEvaluation"


@dataclass(frozen=True)
class Cost:
    """CPU time of a training run, from short ones.

    Attributes:
        once: Seconds that only the first run takes: our features, which later runs read.
        fixed: Further seconds that do not depend on the steps.
        step: Seconds of a step.
    """

    once: float
    fixed: float
    step: float

    def steps(self, seconds: float) -> int:
        """Return how many steps fit in a CPU time.

        Raises:
            UserError: Not one step fits.
        """
        steps = int((seconds - self.once - self.fixed) / self.step)
        if steps < 1:
            raise UserError(
                f"{seconds / 60:g} minutes are too few: start and features take "
                f"{(self.once + self.fixed) / 60:.1f} and a step {self.step:.2f} s; "
                "set longer minutes"
            )
        return steps


class Trained(NamedTuple):
    """A policy that was trained for a given CPU time.

    Attributes:
        minutes: CPU minutes that were granted.
        seed: Seed of the training.
        steps: Optimiser steps.
        spent: CPU minutes of the training and, with cached features, of these.
        policy: Its checkpoint.
    """

    minutes: float
    seed: int
    steps: int
    spent: float
    policy: Path


class Training:
    """Train one contender on one dataset.

    Args:
        contender: The policy and its options.
        recipe: Our Stage-2 recipe, which names the dataset.
        dataset: Folder of the dataset with instructions as vectors, which LeRobot's policies read.
        folder: Folder for runs, the feature cache and logs.
        more: Further options of the command.
        threads: Threads of PyTorch.
        cameras: Cameras that our policy sees; LeRobot's see those of the dataset.
    """

    def __init__(
        self,
        contender: Contender,
        recipe: Path,
        dataset: Path,
        folder: Path,
        more: dict[str, str],
        threads: int,
        cameras: Sequence[str],
    ) -> None:
        self.contender, self._cameras = contender, cameras
        self._recipe, self._dataset, self._folder = recipe, dataset, folder
        self._more, self._threads = more, threads

    def cost(self) -> Cost:
        """Measure what the start and a step cost, by three short runs.

        The first run of our policy computes the features; later runs read them.
        """
        few, many = self.contender.pilot_steps
        first = self.run("pilot_first", few, seed=0)
        short = self.run("pilot_short", few, seed=0)
        long = self.run("pilot_long", many, seed=0)
        step = max(1e-3, (long - short) / (many - few))
        once = max(0.0, first - short) if self.contender.own else 0.0
        return Cost(once, max(0.0, short - few * step), step)

    def within(self, budgets: Iterable[tuple[float, int]]) -> Iterator[Trained]:
        """Train for each CPU time [minutes] with a seed. Short runs come first, to measure steps.

        Raises:
            UserError: A training failed, or not one step fits.
        """
        cost: Cost | None = None
        for minutes, seed in budgets:
            cost = cost or self.cost()
            steps, name = cost.steps(60 * minutes), f"{minutes:g}min-{seed}"
            seconds = self.run(name, steps, seed) + cost.once
            yield Trained(minutes, seed, steps, round(seconds / 60, 1), self.policy(name))

    def run(self, name: str, steps: int, seed: int) -> float:
        """Train, and return the CPU seconds of the process and its workers.

        Raises:
            UserError: The command failed; the message names its log.
        """
        out = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        words = (self._own_words if self.contender.own else self._lerobot_words)(out, steps, seed)
        log = out.with_suffix(".log")
        with log.open("wb") as stream:
            process = subprocess.Popen(words, stdout=stream, stderr=stream, env=self._env())
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise UserError(f"{Path(words[1]).name} failed, see {log}: {last}")
        return usage.ru_utime + usage.ru_stime

    def policy(self, name: str) -> Path:
        """Return the checkpoint of a run."""
        out = self._folder / name
        return out / "policy.ckpt" if self.contender.own else out / POLICY

    def _env(self) -> dict[str, str]:
        threads = str(self._threads)
        cache = str(self._folder / "cache")
        return os.environ | {"OMP_NUM_THREADS": threads, "ACTIONPRIOR_CACHE": cache}

    def _own_words(self, out: Path, steps: int, seed: int) -> list[str]:
        recipe = out.with_suffix(".yaml")
        recipe.write_text(yaml.safe_dump(self._with_checkpoint_only(out)))
        options = {
            "config": str(recipe),
            "seed_everything": str(seed),
            "trainer.max_steps": str(steps),
            "trainer.val_check_interval": str(steps),
            "trainer.default_root_dir": str(out),
            "trainer.enable_progress_bar": "false",
        }
        return [
            *_script("lightning"),
            "fit",
            *_flags(options | self.contender.options | self._more),
        ]

    def _lerobot_words(self, out: Path, steps: int, seed: int) -> list[str]:
        options = {
            "dataset.repo_id": "local/demonstrations",
            "dataset.root": str(self._dataset),
            "policy.device": "cpu",
            "policy.push_to_hub": "false",
            "output_dir": str(out),
            "steps": str(steps),
            "save_freq": str(steps),
            "seed": str(seed),
            "num_workers": "0",
            "log_freq": "50",
            "wandb.enable": "false",
        }
        return [*_script("lerobot-train"), *_flags(options | self.contender.options | self._more)]

    def _with_checkpoint_only(self, out: Path) -> dict[str, Any]:
        """Return the recipe without rollouts; it saves one checkpoint, at its end, in ``out``."""
        content: dict[str, Any] = yaml.safe_load(self._recipe.read_text())
        content["data"]["init_args"]["embodiments"][0]["cameras"] = list(self._cameras)
        callbacks = content["trainer"]["callbacks"]
        kept = [c for c in callbacks if c["class_path"] not in (CHECKPOINT, ROLLOUTS)]
        arguments = {"dirpath": str(out), "filename": "policy", "save_on_train_epoch_end": True}
        kept.append({"class_path": CHECKPOINT, "init_args": arguments})
        content["trainer"]["callbacks"] = kept
        return content


def _script(name: str) -> list[str]:
    return [sys.executable, str(Path(sys.executable).parent / name)]


def _flags(options: dict[str, str]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items()]
