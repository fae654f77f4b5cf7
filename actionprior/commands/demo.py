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
    trunk = _warm_trunk(folder / "trunk.safetensors", ground_steps, reuse)
    priors = {
        arm: _pretrain(folder, arm, pretrain_steps, reuse)
        for arm in chosen.arms
        if arm != "no_prior"
    }
    runs: list[Run] = []
    for seed in chosen.seeds:
        for arm in chosen.arms:
            prior = priors.get(arm, priors["prior"])
            options = [
                f"--seed_everything={seed}",
                f"--model.prior_checkpoint={prior}",
                f"--model.trunk.init_args.weights={trunk}",
                f"--data.demonstrations={chosen.demonstrations}",
                f"--data.seed={seed}",
                f"--trainer.max_steps={steps}",
                f"--trainer.val_check_interval={max(1, steps // 20)}",
                "--trainer.log_every_n_steps=1",
                *ARMS[arm],
            ]
            log_dir = _fit(FINETUNE, folder / preset / f"{arm}-{seed}", options, rollouts)
            runs.append(Run(arm, seed, log_dir))
    minutes = (time.monotonic() - start) / 60
    report(runs, folder / preset, chosen.demonstrations, steps, minutes)


def _warm_trunk(path: Path, steps: int, reuse: bool) -> Path:
    if not (reuse and path.is_file()):
        from actionprior.commands import ground

        ground.main(["--robots=[panda]", f"--out={path}", f"--steps={steps}"])
    return path


def _pretrain(folder: Path, arm: str, steps: int, reuse: bool) -> Path:
    path = folder / f"{arm}.ckpt"
    if reuse and path.is_file():
        return path
    options = [f"--trainer.max_steps={steps}"] if steps else []
    if steps:
        options.append(f"--trainer.val_check_interval={steps}")
    if arm == "shuffled":
        options.append("--data.shuffle_time=true")
    _fit(PRETRAIN, folder / "pretrain" / arm, options, save=path)
    return path


def _fit(
    recipe: str,
    folder: Path,
    options: list[str],
    rollouts: int = 0,
    save: Path | None = None,
) -> Path:
    """Run ``lightning fit`` and return its log folder."""
    from actionprior.commands import _trainer

    shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo
    words = ["fit", f"--config={recipe}", f"--trainer.default_root_dir={folder}", *options]
    if rollouts:
        # jsonargparse: an option of the list's last callback, the rollouts.
        words.append(f"--trainer.callbacks.episodes={rollouts}")
    print("\n$ lightning " + " ".join(words), flush=True)
    cli = _trainer.main(words)
    if save is not None:
        cli.trainer.save_checkpoint(save)
    return Path(str(cli.trainer.log_dir))


def main(args: list[str]) -> None:
    """Run the verb: see :func:`demo` for its options."""
    from jsonargparse import auto_cli

    auto_cli(demo, args=args, prog="lightning demo")
