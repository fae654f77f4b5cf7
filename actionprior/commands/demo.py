"""Record, pretrain, train with and without the prior, roll out, compare.

Every step is the command that a user would type (``lightning ground``, ``lightning fit``), in a
process of its own; the arms differ in the switches named in ``ARMS`` and in nothing else.
"""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from actionprior.errors import UserError

if TYPE_CHECKING:
    from actionprior.study.jobs import Jobs

PRETRAIN, FINETUNE = "recipes/pretrain.yaml", "recipes/finetune.yaml"
ARMS: dict[str, list[str]] = {
    "prior": [],
    "no_prior": ["--model.use_prior=false"],
    # The control: a prior trained on the same chunks with their steps shuffled in time.
    "shuffled": [],
}


@dataclass(frozen=True)
class Preset:
    """A budget, fixed before any arm is trained and the same for all of them.

    Attributes:
        arms: of ``ARMS``.
        seeds: of weights, batches and noise; shared by the arms.
        steps: of Stage 2, with a completed learning-rate schedule.
        demonstrations: of each task in Stage 2.
        rollouts: of each task, arm and seed; the scenes are shared by arms and seeds.
        pretrain_steps: of Stage 1.
        pretrain_demonstrations: of each arm and task in Stage 1.
        ground_steps: of the trunk's warm-up.
        ground_samples: images of the trunk's warm-up.
    """

    arms: tuple[str, ...] = ("prior", "no_prior")
    seeds: tuple[int, ...] = (0,)
    steps: int = 600
    demonstrations: int = 30
    rollouts: int = 50
    pretrain_steps: int = 3000
    pretrain_demonstrations: int = 150
    ground_steps: int = 3000
    ground_samples: int = 24000


PRESETS = {
    "quick": Preset(),
    "paired": Preset(arms=("prior", "no_prior", "shuffled"), seeds=(0, 1, 2)),
    "full": Preset(steps=3000, demonstrations=100),
    # Whether everything runs, not what it reaches.
    "smoke": Preset(
        steps=10,
        demonstrations=2,
        rollouts=1,
        pretrain_steps=2,
        pretrain_demonstrations=2,
        ground_steps=2,
        ground_samples=64,
    ),
}


def demo(preset: str = "quick", out: str = "outputs/demo", reuse: bool = False) -> None:
    """Show what the prior gives on the simulated suite.

    Args:
        preset: ``quick`` (one seed), ``paired`` (three seeds and the control prior), ``full``
            (100 demonstrations a task and a longer run) or ``smoke`` (does it run at all).
        out: folder for checkpoints, logs, the picture, the film and ``result.json``.
        reuse: take the trunk, the priors and the finished runs that an earlier demo with the
            same preset left in ``out``: so an interrupted one goes on.

    Raises:
        UserError: unknown preset, or the recipes are not there.
    """
    from actionprior.commands._demo_report import Run, report
    from actionprior.study.jobs import Jobs

    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown; expected one of {sorted(PRESETS)}")
    for recipe in (PRETRAIN, FINETUNE):
        if not Path(recipe).is_file():
            raise UserError(f"{recipe} is not here; run the demo in the project's folder")
    start, chosen, folder = time.monotonic(), PRESETS[preset], Path(out) / preset
    folder.mkdir(parents=True, exist_ok=True)
    trunk = folder / "trunk.safetensors"
    priors = {arm: folder / f"{arm}.ckpt" for arm in chosen.arms if arm != "no_prior"}
    with Jobs(folder / "logs") as jobs:
        if not (reuse and all(path.is_file() for path in priors.values())):
            for robot in _recipe_robots():  # side by side, rather than in the pretraining
                words = [f"--config={PRETRAIN}", f"--data.robots=[{robot}]"]
                words += [f"--data.episodes_per_task={chosen.pretrain_demonstrations}"]
                jobs.start(f"record-{robot}", ["prepare", *words])
            jobs.wait()
        for arm, path in priors.items():
            if not (reuse and path.is_file()):
                jobs.submit(partial(_pretrain, jobs, arm, path, chosen))
        if not (reuse and trunk.is_file()):
            words = [f"--steps={chosen.ground_steps}", f"--samples={chosen.ground_samples}"]
            jobs.start("ground", ["ground", "--robots=[panda]", f"--out={trunk}", *words])
        recorded = f"--data.episodes_per_task={chosen.demonstrations}"
        jobs.start("record", ["prepare", f"--config={FINETUNE}", recorded])
        jobs.wait()
        runs = []
        for seed in chosen.seeds:
            for arm in chosen.arms:
                run = Run(arm, seed, folder / f"{arm}-{seed}")
                runs.append(run)
                if reuse and run.finished:
                    continue
                shutil.rmtree(run.folder, ignore_errors=True)  # of an earlier demo
                jobs.start(
                    f"{preset}-{arm}-{seed}",
                    [
                        *_words(FINETUNE, run.folder),
                        f"--seed_everything={seed}",
                        f"--model.prior_checkpoint={priors.get(arm, priors['prior'])}",
                        f"--model.trunk.init_args.weights={trunk}",
                        recorded,
                        f"--data.seed={seed}",
                        f"--trainer.max_steps={chosen.steps}",
                        f"--trainer.val_check_interval={max(1, chosen.steps // 10)}",
                        "--trainer.log_every_n_steps=1",
                        # jsonargparse: an option of the list's last callback, the rollouts.
                        f"--trainer.callbacks.episodes={chosen.rollouts}",
                        *ARMS[arm],
                    ],
                )
        jobs.wait()
    minutes = (time.monotonic() - start) / 60
    report(runs, folder, chosen.demonstrations, chosen.steps, minutes)


def _recipe_robots() -> list[str]:
    import yaml

    robots: list[str] = yaml.safe_load(Path(PRETRAIN).read_text())["data"]["init_args"]["robots"]
    return robots


def _pretrain(jobs: "Jobs", arm: str, path: Path, chosen: Preset) -> None:
    """Train a prior; its file appears when it is trained to the end, which ``reuse`` counts on."""
    log = path.parent / "pretrain" / arm
    shutil.rmtree(log, ignore_errors=True)  # of an earlier demo
    words = [
        *_words(PRETRAIN, log),
        f"--data.episodes_per_task={chosen.pretrain_demonstrations}",
        f"--trainer.max_steps={chosen.pretrain_steps}",
        f"--trainer.val_check_interval={max(1, chosen.pretrain_steps // 2)}",
        f"--trainer.callbacks.dirpath={log}",
        f"--trainer.callbacks.filename={path.stem}",
    ]
    words += ["--data.shuffle_time=true"] if arm == "shuffled" else []
    if jobs.run(f"pretrain-{arm}", words):
        (log / path.name).replace(path)


def _words(recipe: str, folder: Path) -> list[str]:
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    return ["fit", f"--config={recipe}", f"--trainer.default_root_dir={folder}", *quiet]


def main(args: list[str]) -> None:
    """Run the verb: see :func:`demo` for its options."""
    from jsonargparse import auto_cli

    auto_cli(demo, args=args, prog="lightning demo")
