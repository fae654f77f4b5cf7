"""Small runs of Stage 1."""

from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from actionprior.batch import TrajectoryBatch
from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.training.settings import PRIOR_GROUPS, grouped_settings
from tests.helpers.synthetic import ToyTrajectories

SMALL = PriorArchitecture(width=32, latent_width=16, encoder_depth=1, decoder_depth=2, heads=2)


def module(data: ToyTrajectories, **kwargs: object) -> MotionPriorModule:
    torch.manual_seed(0)
    robots = [e.to_dict() for e in data.embodiments]
    settings = {"architecture": SMALL, "warmup_steps": 5, "learning_rate": 3e-3, **kwargs}
    return MotionPriorModule(robots, **grouped_settings(settings, PRIOR_GROUPS))


def trainer(folder: Path, steps: int, **kwargs: object) -> Trainer:
    settings = {
        "max_steps": steps,
        "logger": False,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        **kwargs,
    }
    return Trainer(**settings)


class StopAt(Callback):
    """End a run in the middle of an epoch; its schedule spans the whole run."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


class Spoil(Callback):
    """Scale the actions of some steps' batches, by default to NaN; keep weights and batches."""

    def __init__(self, steps: set[int], factor: float = float("nan")) -> None:
        self.steps, self.factor = steps, factor
        self.weights: list[torch.Tensor] = []
        self.batches: list[TrajectoryBatch] = []
        self.rows: list[dict[str, float]] = []

    def on_train_batch_start(
        self, trainer: Trainer, module: MotionPriorModule, batch: TrajectoryBatch, index: int
    ) -> None:
        self.batches.append(TrajectoryBatch(*(part.clone() for part in batch)))
        if trainer.global_step in self.steps:
            batch.action_BHA.mul_(self.factor)

    def on_train_batch_end(self, trainer: Trainer, module: MotionPriorModule, *_: object) -> None:
        state = [s for p in trainer.optimizers[0].state.values() for s in p.values()]
        parts = [part.detach().flatten() for part in (*module.parameters(), *state)]
        self.weights.append(torch.cat(parts))
        self.rows.append({key: float(v) for key, v in trainer.callback_metrics.items()})


class Stop(Callback):
    """End the run after a number of steps, as a killed job does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "stopped.ckpt")
            raise KeyboardInterrupt
