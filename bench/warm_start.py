"""Measure what a prior of other robots saves when Stage 1 learns a new arm."""

import json
import time
from pathlib import Path
from statistics import mean

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything

from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.training.settings import FlowSettings
from bench.command_line import run

ERROR = "val/mae_normalized"


def bench(
    episodes: int = 5,
    prior_episodes: int = 20,
    steps: int = 300,
    prior_steps: int = 600,
    seeds: int = 3,
    out: Path = Path("outputs/warm_start"),
) -> None:
    """Train Stage 1 on few demonstrations of the UR5e, from scratch and from a prior of two arms.

    The prior is of the Panda and the Kuka, and has never seen the UR5e. The tasks are reach, push,
    lift and place; half of the UR5e's episodes are held out.

    Args:
        episodes: Demonstrations of the UR5e for each task.
        prior_episodes: Demonstrations of the two other arms for each task.
        steps: Training steps on the UR5e.
        prior_steps: Training steps of the prior.
        seeds: Number of seeds of the runs on the UR5e.
        out: Folder of the recordings and of the prior.
    """
    start, prior = time.monotonic(), out / "prior.ckpt"
    first = _fit(["panda", "kuka"], prior_episodes, prior_steps, out, save=prior)
    curves = {
        name: [
            _fit(["ur5e"], episodes, steps, out, seed, prior if name == "from_prior" else None)
            for seed in range(1, seeds + 1)
        ]
        for name in ("from_scratch", "from_prior")
    }
    targets = [min(curve.values()) for curve in curves["from_scratch"]]
    reached = [
        next((step for step, error in curve.items() if error <= target), None)
        for curve, target in zip(curves["from_prior"], targets, strict=True)
    ]
    result = {
        "prior": {"episodes": 8 * prior_episodes, "steps": prior_steps, "error": _last(first)},
        "episodes": 4 * episodes,
        "held_out_episodes": 2 * episodes,
        "steps": steps,
        "seeds": seeds,
        "best_error_from_scratch": [round(t, 4) for t in targets],
        "steps_from_scratch": [
            min(curve, key=lambda step: curve[step]) for curve in curves["from_scratch"]
        ],
        "steps_from_prior_to_that_error": reached,
        "mean_error_by_step": {
            name: {step: round(mean(curve[step] for curve in own), 4) for step in own[0]}
            for name, own in curves.items()
        },
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    print("RESULT " + json.dumps(result))


class _Errors(Callback):
    """Record the held-out error after each validation, by step."""

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.by_step[trainer.global_step] = float(trainer.callback_metrics[ERROR])


def _fit(
    robots: list[str],
    episodes: int,
    steps: int,
    out: Path,
    seed: int = 0,
    start: Path | None = None,
    save: Path | None = None,
) -> dict[int, float]:
    from data_modules import SimulatedTrajectories

    seed_everything(seed, verbose=False)
    torch.set_num_threads(1)
    data = SimulatedTrajectories(
        robots,
        episodes_per_task=episodes,
        data_dir=str(out / "data"),
        batch_size=64,
        skip_idle=True,
        seed=seed,
        val_fraction=0.1 if save else 0.5,
    )
    architecture = PriorArchitecture(width=64, latent_width=32, decoder_sees_state=True)
    model = MotionPriorModule(
        [robot.to_dict() for robot in data.embodiments],
        architecture,
        str(start or ""),
        learning_rate=4e-3,
        flow=FlowSettings(latent_noise=0.05),
    )
    errors = _Errors()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        check_val_every_n_epoch=None,
        val_check_interval=steps // (4 if save else 15),
        callbacks=[errors],
        default_root_dir=out,
    )
    trainer.fit(model, data)
    if save:
        trainer.save_checkpoint(save)
    return errors.by_step


def _last(curve: dict[int, float]) -> float:
    return round(curve[max(curve)], 4)


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench` for its options."""
    run(bench, "warm_start", args)


if __name__ == "__main__":
    main()
