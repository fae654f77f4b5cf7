"""Show what the prior gives: record, pretrain, train with and without it, roll out, compare.

Every step is a command that a user would type (``lightning ground``, ``lightning fit``), in a
separate process. The arms differ only in the options named in ``ARMS``.
"""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from actionprior.commands._parser import call
from actionprior.errors import UserError

if TYPE_CHECKING:
    from actionprior.commands._demo_report import DemoRun
    from actionprior.study.jobs import Jobs

PRETRAIN, FINETUNE = "recipes/pretrain.yaml", "recipes/finetune.yaml"
TRUNK = "trunk.safetensors"
ARMS: dict[str, list[str]] = {
    "prior": [],
    "no_prior": ["--model.use_prior=false"],
    # The control: a prior trained on the same chunks with their steps shuffled in time.
    "shuffled": [],
}

PUSH = 0.1
"""Largest speed of random pushes in the demonstrations of both stages [m/s]."""
SHARED = [
    f"--data.push={PUSH}",
    # The policy reads where target and goal are from the tip, without attention.
    "--model.trunk.init_args.summary=true",
    # z′ also says where the arm will be when the gripper switches or the episode ends.
    "--model.fusion.keyframe_weight=1",
    "--model.flow.noise_repeats=2",
]
"""Options of every arm in Stage 2. The recipe keeps its own, which the published studies have."""


@dataclass(frozen=True)
class Preset:
    """Budget of a demo, the same for all arms.

    Attributes:
        arms: Keys of ``ARMS``.
        seeds: Seeds of weights, batches and noise, shared by the arms.
        steps: Steps of Stage 2, with a completed learning-rate schedule.
        demonstrations: Demonstrations per task in Stage 2.
        rollouts: Rollouts per task, arm and seed; arms and seeds share the scenes.
        pretrain_steps: Steps of Stage 1.
        pretrain_demonstrations: Demonstrations per robot and task in Stage 1.
        ground_steps: Steps of the trunk's warm-up.
        ground_samples: Images of the trunk's warm-up.
    """

    arms: tuple[str, ...] = ("prior", "no_prior")
    seeds: tuple[int, ...] = (0,)
    steps: int = 1500
    demonstrations: int = 50
    rollouts: int = 50
    pretrain_steps: int = 3000
    pretrain_demonstrations: int = 150
    ground_steps: int = 3000
    ground_samples: int = 24000


PRESETS = {
    "quick": Preset(),
    "paired": Preset(arms=("prior", "no_prior", "shuffled"), seeds=(0, 1, 2)),
    "full": Preset(steps=3000, demonstrations=100),
    # Checks only that everything runs; its success rates mean nothing.
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


def demo(
    preset: Literal["quick", "paired", "full", "smoke"] = "quick",
    out: Path = Path("outputs/demo"),
    reuse: bool = False,
) -> None:
    """Record, pretrain, train with and without the prior, roll out, and compare the success.

    Run it in the project's folder: it uses the recipes there. It writes checkpoints, logs, a
    picture, a film of a success and `result.json`.

    Args:
        preset: Budget: `quick` (one seed), `paired` (three seeds and the control prior), `full`
            (100 demonstrations per task and a longer run), or `smoke` (a test run of two minutes).
        out: Folder to write; each preset gets a folder in it.
        reuse: Keep the trunk, priors and finished runs of an earlier demo with the same preset in
            `out`, for instance to resume an interrupted demo.

    Raises:
        UserError: The recipes are missing, or a run failed.
    """
    from actionprior.commands._demo_report import report
    from actionprior.study.jobs import Jobs

    for recipe in (PRETRAIN, FINETUNE):
        if not Path(recipe).is_file():
            raise UserError(f"{recipe} is missing here; run the demo in the project's folder")
    start, chosen, folder = time.monotonic(), PRESETS[preset], out / preset
    folder.mkdir(parents=True, exist_ok=True)
    with Jobs(folder / "logs") as jobs:
        _prepare(jobs, chosen, folder, reuse)
        runs = _finetune(jobs, chosen, folder, reuse)
    minutes = (time.monotonic() - start) / 60
    report(runs, folder, chosen.demonstrations, chosen.steps, minutes)


def _prepare(jobs: "Jobs", chosen: Preset, folder: Path, reuse: bool) -> None:
    """Record the data of both stages, and train the priors and the trunk."""
    priors = _priors(chosen, folder)
    if not (reuse and all(path.is_file() for path in priors.values())):
        for robot in _recipe_robots():  # here in parallel; the pretraining would do it in turn
            words = [f"--config={PRETRAIN}", f"--data.robots=[{robot}]", f"--data.push={PUSH}"]
            words += [f"--data.episodes_per_task={chosen.pretrain_demonstrations}"]
            jobs.start(f"record-{robot}", ["prepare", *words])
        jobs.wait()
    for arm, path in priors.items():
        if not (reuse and path.is_file()):
            jobs.submit(partial(_pretrain, jobs, arm, path, chosen))
    trunk = folder / TRUNK
    if not (reuse and trunk.is_file()):
        words = [f"--steps={chosen.ground_steps}", f"--samples={chosen.ground_samples}"]
        jobs.start("ground", ["ground", "--robots=[panda]", f"--out={trunk}", *words])
    jobs.start("record", ["prepare", f"--config={FINETUNE}", _recorded(chosen), SHARED[0]])
    jobs.wait()


def _finetune(jobs: "Jobs", chosen: Preset, folder: Path, reuse: bool) -> "list[DemoRun]":
    """Train every arm with every seed, with rollouts at the end."""
    from actionprior.commands._demo_report import DemoRun

    priors, runs = _priors(chosen, folder), []
    for seed in chosen.seeds:
        for arm in chosen.arms:
            run = DemoRun(arm, seed, folder / f"{arm}-{seed}")
            runs.append(run)
            if reuse and run.finished:
                continue
            shutil.rmtree(run.folder, ignore_errors=True)  # left by an earlier demo
            jobs.start(
                f"{folder.name}-{arm}-{seed}",
                [
                    *_words(FINETUNE, run.folder),
                    f"--seed_everything={seed}",
                    f"--model.prior_checkpoint={priors.get(arm, priors['prior'])}",
                    f"--model.trunk.init_args.weights={folder / TRUNK}",
                    _recorded(chosen),
                    f"--data.seed={seed}",
                    f"--trainer.max_steps={chosen.steps}",
                    f"--trainer.val_check_interval={max(1, chosen.steps // 10)}",
                    "--trainer.log_every_n_steps=1",
                    *SHARED,
                    # Without an index, jsonargparse sets the last callback of the list: rollouts.
                    f"--trainer.callbacks.episodes={chosen.rollouts}",
                    *ARMS[arm],
                ],
            )
    jobs.wait()
    return runs


def _priors(chosen: Preset, folder: Path) -> dict[str, Path]:
    """Return the prior's checkpoint of each arm that starts from a prior."""
    return {arm: folder / f"{arm}.ckpt" for arm in chosen.arms if arm != "no_prior"}


def _recorded(chosen: Preset) -> str:
    return f"--data.episodes_per_task={chosen.demonstrations}"


def _recipe_robots() -> list[str]:
    import yaml

    robots: list[str] = yaml.safe_load(Path(PRETRAIN).read_text())["data"]["init_args"]["robots"]
    return robots


def _pretrain(jobs: "Jobs", arm: str, path: Path, chosen: Preset) -> None:
    """Train a prior. Its file appears at the end of the training, which ``reuse`` relies on."""
    log = path.parent / "pretrain" / arm
    shutil.rmtree(log, ignore_errors=True)  # left by an earlier demo
    words = [
        *_words(PRETRAIN, log),
        f"--data.push={PUSH}",
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
    call(demo, args, "lightning demo")
