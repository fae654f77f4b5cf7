"""Record, pretrain, train with and without the prior, roll out, compare.

Every step is the command that a user would type (``lightning ground``, ``lightning fit``), run
in this process; the arms differ in the switches named in ``ARMS`` and in nothing else.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from actionprior.errors import UserError

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
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    demonstrations: int
    rollouts: int = 50


PRESETS = {
    "quick": Preset(("prior", "no_prior"), (0,), 400, 30),
    "paired": Preset(("prior", "no_prior", "shuffled"), (0, 1, 2), 400, 30),
    "full": Preset(("prior", "no_prior"), (0,), 4000, 100),
}


def demo(
    preset: str = "quick",
    out: str = "outputs/demo",
    steps: int = 0,
    rollouts: int = 0,
    pretrain_steps: int = 0,
    ground_steps: int = 3000,
    reuse: bool = False,
) -> None:
    """Show what the prior gives on the simulated suite.

    Args:
        preset: ``quick`` (one seed, minutes), ``paired`` (three seeds and the control prior) or
            ``full`` (100 demonstrations a task, ten times the steps).
        out: folder for checkpoints, logs, the picture, the film and ``result.json``.
        steps: of Stage 2 instead of the preset's.
        rollouts: of each task instead of the preset's.
        pretrain_steps: of Stage 1 instead of the recipe's.
        ground_steps: of the trunk's warm-up.
        reuse: take the trunk and the priors that an earlier demo left in ``out``.

    Raises:
        UserError: unknown preset, or the recipes are not there.
    """
    from actionprior.commands._demo_report import Run, report

    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown; expected one of {sorted(PRESETS)}")
    for recipe in (PRETRAIN, FINETUNE):
        if not Path(recipe).is_file():
            raise UserError(f"{recipe} is not here; run the demo in the project's folder")
    start, chosen, folder = time.monotonic(), PRESETS[preset], Path(out)
    steps, rollouts = steps or chosen.steps, rollouts or chosen.rollouts
    folder.mkdir(parents=True, exist_ok=True)
    trunk = folder / "trunk.safetensors"
    priors = {arm: folder / f"{arm}.ckpt" for arm in chosen.arms if arm != "no_prior"}
    with Jobs(folder / "logs") as jobs:
        for arm, path in priors.items():
            if not (reuse and path.is_file()):
                jobs.start(f"pretrain-{arm}", _pretrain(folder, arm, path, pretrain_steps))
        if not (reuse and trunk.is_file()):
            jobs.start(
                "ground", ["ground", "--robots=[panda]", f"--out={trunk}", f"--steps={ground_steps}"]
            )
        jobs.start("record", ["prepare", f"--config={FINETUNE}"])
        jobs.wait()
        runs = []
        for seed in chosen.seeds:
            for arm in chosen.arms:
                run = Run(arm, seed, folder / preset / f"{arm}-{seed}")
                shutil.rmtree(run.folder, ignore_errors=True)  # of an earlier demo
                jobs.start(
                    f"{preset}-{arm}-{seed}",
                    [
                        *_words(FINETUNE, run.folder),
                        f"--seed_everything={seed}",
                        f"--model.prior_checkpoint={priors.get(arm, priors['prior'])}",
                        f"--model.trunk.init_args.weights={trunk}",
                        f"--data.demonstrations={chosen.demonstrations}",
                        f"--data.seed={seed}",
                        f"--trainer.max_steps={steps}",
                        f"--trainer.val_check_interval={max(1, steps // 20)}",
                        "--trainer.log_every_n_steps=1",
                        # jsonargparse: an option of the list's last callback, the rollouts.
                        f"--trainer.callbacks.episodes={rollouts}",
                        *ARMS[arm],
                    ],
                )
                runs.append(run)
        jobs.wait()
    minutes = (time.monotonic() - start) / 60
    report(runs, folder / preset, chosen.demonstrations, steps, minutes)


def _pretrain(folder: Path, arm: str, path: Path, steps: int) -> list[str]:
    log = folder / "pretrain" / arm
    shutil.rmtree(log, ignore_errors=True)
    words = _words(PRETRAIN, log)
    words.append(f"--trainer.callbacks.dirpath={path.parent}")
    words.append(f"--trainer.callbacks.filename={path.stem}")
    if steps:
        words += [f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={steps}"]
    return words + (["--data.shuffle_time=true"] if arm == "shuffled" else [])


def _words(recipe: str, folder: Path) -> list[str]:
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    return ["fit", f"--config={recipe}", f"--trainer.default_root_dir={folder}", *quiet]


def main(args: list[str]) -> None:
    """Run the verb: see :func:`demo` for its options."""
    from jsonargparse import auto_cli

    auto_cli(demo, args=args, prog="lightning demo")
