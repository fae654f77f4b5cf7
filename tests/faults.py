"""Break tiny runs of both stages and count the faults that they survive.

Run it as ``python -m tests.faults``. Killed runs resume with ``--ckpt_path last`` and must end bit
for bit like an undisturbed run. Damaged files must be rejected by name, or read as written. What a
stranger may send must be refused in one sentence, or do what its sender may ask for.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.distributed import destroy_process_group

from actionprior import cli
from actionprior.checkpoints import resume
from actionprior.checkpoints.atomic import AtomicCheckpointIO
from actionprior.checkpoints.folder import CONFIG, WEIGHTS, read_config, write_folder
from actionprior.checkpoints.keys import CONFIG_PART
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.checkpoints.sharded import ShardedCheckpoint, save_sharded
from actionprior.errors import UserError
from actionprior.files.weights import load_weights, save_weights
from actionprior.networks.trunks import SmallTrunk
from actionprior.training.settings import grouped_settings
from actionprior.vla import VLAModule
from tests.helpers.hostile import Count, hostile_inputs
from tests.helpers.killed_saves import join_group_of_one, tree
from tests.helpers.policies import tiny_network
from tests.helpers.stage1_runs import SMALL, module
from tests.helpers.synthetic import BrightnessTrunk, ToyTrajectories, ToyVLA

STEPS = 24  # two epochs
EVERY = 2  # steps between checkpoints
SAME = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
SAME += ("lr_schedulers", "epoch", "global_step", "bad_steps", "ToyTrajectories", "ToyVLA")


class Rows(Callback):
    """Write each step's loss and λ to a file; a repeated step must give the same values."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        logged = {k: float(trainer.callback_metrics[k]) for k in trainer.callback_metrics}
        kept = [logged.get(f"train/{key}") for key in ("loss", "lambda", "learning_rate")]
        with Path(self.file).open("a") as rows:
            rows.write(json.dumps([trainer.global_step, kept]) + "\n")


class Signal(Callback):
    """Send a signal to this process in the middle of a step, with half the gradient computed."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum

    def on_after_backward(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)


# ---- runs ---------------------------------------------------------------------------------


def stage_of(stage: int) -> tuple[LightningModule, ToyTrajectories]:
    """Build a tiny model and its data."""
    if stage == 1:
        data = ToyTrajectories(episodes=6, batch_size=16)
        return module(data), data
    data = ToyVLA(episodes=6, batch_size=16)
    torch.manual_seed(1)
    robots = [e.to_dict() for e in data.embodiments]
    settings = {"width": 32, "heads": 2, "warmup_steps": 5, "decay_fraction": 0.5}
    return VLAModule(
        robots, BrightnessTrunk(), architecture=SMALL, **grouped_settings(settings)
    ), data


def run(stage: int, folder: Path, fault: Callable[[], None] | None) -> None:
    """Train to the end, from the start or from the newest checkpoint."""
    if fault is not None:
        fault()
    model, data = stage_of(stage)
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=EVERY)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        log_every_n_steps=1,
        max_steps=STEPS,
        limit_val_batches=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            EMAWeightAveraging(decay=0.9, update_starting_at_step=0),
            keep,
            Rows(str(folder / "rows")),
        ],
    )
    last = resume.furthest([folder], stage)
    trainer.fit(model, data, ckpt_path=last, weights_only=True if last else None)


def killed_while_saving(nth: int, half: bool) -> None:
    """Make this process kill itself in its ``nth`` save, with half or all of it written."""
    saves, save = 0, torch.save

    def last_act(checkpoint: dict[str, Any], file: Any) -> None:
        nonlocal saves
        saves += 1
        save(checkpoint, file)
        if saves == nth:
            file.flush()
            if half:
                os.truncate(file.fileno(), os.fstat(file.fileno()).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = last_act


def forked(folder: Path, target: Callable[..., None], *args: object) -> Any:
    """Start a child process whose output goes to a file."""

    def main() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        target(*args)

    child = multiprocessing.get_context("fork").Process(target=main)
    child.start()
    return child


def outcome(folder: Path) -> tuple[dict[str, Any], dict[int, list[float]]]:
    """Return a run's last checkpoint and what each step logged."""
    [last] = folder.rglob(f"*step={STEPS}*.ckpt")
    checkpoint = read_checkpoint(last)
    rows = [json.loads(line) for line in (folder / "rows").read_text().splitlines()]
    return {key: checkpoint[key] for key in SAME if key in checkpoint}, dict(rows)


def equal(a: Any, b: Any) -> bool:
    """Return True if two nested values are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def kills(folder: Path, stage: int, trials: int, rng: random.Random) -> list[Count]:
    """Kill each trial several times, at random times and while saving, then run to the end."""
    began = time.monotonic()
    whole = forked(folder / "whole", run, stage, folder / "whole", None)
    whole.join()
    long = time.monotonic() - began
    wanted = outcome(folder / "whole")
    anywhere = Count(f"Stage {stage}: killed at a random time")
    saving = Count(f"Stage {stage}: killed while saving")
    for trial in range(trials):
        place, died = folder / f"trial{trial}", []
        for count in (anywhere, saving, anywhere, saving):
            fault = None
            if count is saving:
                nth, half = rng.randint(1, 4), rng.random() < 0.5
                fault = lambda nth=nth, half=half: killed_while_saving(nth, half)  # noqa: E731  each with its own values
            child = forked(place, run, stage, place, fault)
            child.join(rng.uniform(0.1, 0.5) * long if count is anywhere else None)
            child.kill()
            child.join()
            if child.exitcode == -signal.SIGKILL:  # else it was at its end already
                died.append(count)
        child = forked(place, run, stage, place, None)
        child.join()
        survived = child.exitcode == 0 and equal(outcome(place), wanted)
        for count in died:
            count.add(survived)
    return [anywhere, saving]


def signals(folder: Path) -> list[Count]:
    """Send a scheduler's signals to ``lightning fit`` in the middle of a step."""
    folder.mkdir()
    log = folder / "scontrol.log"
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    (folder / "scontrol").chmod(0o755)
    slurm = {f"SLURM_{key}": "0" for key in ("PROCID", "LOCALID", "NODEID")}
    slurm |= {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "train"}
    slurm["PATH"] = f"{folder}:{os.environ['PATH']}"

    def fit(place: Path, *sent: dict[str, Any], environment: dict[str, str]) -> int:
        child = forked(place, command, place, list(sent), environment)
        child.join()
        return int(child.exitcode)

    fit(folder / "whole", environment={})
    wanted = outcome(folder / "whole")
    counts = []
    for name, signum, ended, environment in (
        ("SIGUSR1 of SLURM, saved, requeued", signal.SIGUSR1, 0, slurm),
        ("SIGTERM, saved", signal.SIGTERM, 128 + signal.SIGTERM, {}),
    ):
        counts.append(count := Count(f"lightning fit: {name}"))
        for step in (7, 12):
            place = folder / f"{signum.name}{step}"
            sent = {"class_path": "tests.faults.Signal"}
            sent |= {"init_args": {"step": step - 1, "signum": int(signum)}}
            stopped = fit(place, sent, environment=environment)
            saved = [read_checkpoint(p)["global_step"] for p in place.rglob("*.ckpt")]
            fit(place, environment=environment)
            count.add(stopped == ended and saved == [step] and equal(outcome(place), wanted))
    lines = log.read_text().splitlines() if log.exists() else []
    counts[0].survived = min(counts[0].survived, lines.count("requeue 4321"))
    return counts


def command(place: Path, sent: list[dict[str, Any]], environment: dict[str, str]) -> None:
    """Run ``lightning fit --ckpt_path last``, like a job script."""
    os.environ |= environment
    callbacks = "lightning.pytorch.callbacks."
    at_end = {"filename": "{step}", "every_n_train_steps": STEPS}
    average = {"decay": 0.9, "update_starting_at_step": 0, "use_buffers": False}
    recipe = {
        "seed_everything": 0,
        "model": {
            "class_path": "actionprior.MotionPriorModule",
            "init_args": {"architecture": {"width": 32, "latent_width": 16, "heads": 2}},
        },
        "data": {
            "class_path": "tests.helpers.synthetic.ToyTrajectories",
            "init_args": {"episodes": 6},
        },
        "trainer": {
            "accelerator": "cpu",
            "default_root_dir": str(place),
            "logger": False,
            "log_every_n_steps": 1,
            "max_steps": STEPS,
            "accumulate_grad_batches": 2,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": callbacks + "EMAWeightAveraging", "init_args": average},
                {"class_path": callbacks + "ModelCheckpoint", "init_args": at_end},
                {"class_path": "tests.faults.Rows", "init_args": {"file": str(place / "rows")}},
                *sent,
            ],
        },
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    cli.main(["fit", f"--config={place / 'recipe.yaml'}", "--ckpt_path=last"])


# ---- files --------------------------------------------------------------------------------


def damage(
    name: str, file: Path, read: Callable[[], Any], flips: int, cuts: int, rng: random.Random
) -> list[Count]:
    """Flip bits of a file, and truncate it; it must be rejected by name or read as written."""
    whole, wanted = file.read_bytes(), read()
    flipped, cut = Count(f"{name}: a bit flipped"), Count(f"{name}: cut short")
    for count, times in ((flipped, flips), (cut, cuts)):
        for _ in range(times):
            content = bytearray(whole)
            place = rng.randrange(len(whole))
            if count is cut:
                del content[place:]
            else:
                content[place] ^= 1 << rng.randrange(8)
            file.write_bytes(content)
            survived = refused = False
            try:
                survived = equal(read(), wanted)
            except UserError as error:
                refused = str(file) in str(error) or str(file.parent) in str(error)
            count.add(survived, refused)
    file.write_bytes(whole)
    return [flipped, cut]


def files(folder: Path, flips: int, cuts: int, rng: random.Random) -> list[Count]:
    """Damage checkpoints in one file and in shards, an exported folder and a trunk's weights."""
    exported, trunk = folder / "exported", folder / "trunk.safetensors"
    shards = folder / "shards.ckpt"
    join_group_of_one()
    save_sharded(tree(1.0), shards)
    destroy_process_group()
    write_folder(tiny_network(), {CONFIG_PART: {"embodiment": "panda"}, "type": "x"}, exported)
    save_weights(SmallTrunk(image_size=32, channels=16, text_width=16).state_dict(), trunk)
    [checkpoint] = (folder / "stage2/whole").glob("*.ckpt")

    def described() -> dict[str, Any]:
        return {k: v for k, v in read_config(exported).items() if "sha" not in k}

    return [
        count
        for name, file, read in (
            ("checkpoint", checkpoint, lambda: read_checkpoint(checkpoint)["state_dict"]),
            (f"exported {CONFIG}", exported / CONFIG, described),
            (f"exported {WEIGHTS}", exported / WEIGHTS, lambda: load_weights(exported / WEIGHTS)),
            ("trunk's weights", trunk, lambda: load_weights(trunk)),
            *(
                (f"shards' {f.name}", f, ShardedCheckpoint(shards).full_checkpoint)
                for f in shards.iterdir()
            ),
        )
        for count in damage(name, file, read, flips, cuts, rng)
    ]


def main() -> None:
    """Print a table, then ``RESULT`` with the same in JSON; exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trials", type=int, default=10, help="killed runs per stage, 4 kills each"
    )
    parser.add_argument("--flips", type=int, default=300, help="flipped bits per file")
    parser.add_argument("--cuts", type=int, default=60, help="truncations per file")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = [c for s in (1, 2) for c in kills(folder / f"stage{s}", s, chosen.trials, rng)]
        counts += signals(folder / "signals")
        counts += files(folder, chosen.flips, chosen.cuts, rng)
        counts += hostile_inputs(folder / "hostile", chosen.flips, rng)
    names = ("tried", "refused", "survived", "lost")
    print(f"{'fault':<48}" + "".join(f"{name:>10}" for name in names))
    result = {c.fault: {name: getattr(c, name) for name in names} for c in counts}
    for fault, numbers in result.items():
        print(f"{fault:<48}" + "".join(f"{numbers[name]:>10}" for name in names))
    print("RESULT " + json.dumps(result))
    raise SystemExit(any(c.lost for c in counts))


if __name__ == "__main__":
    main()
