"""Test that runs save the newest step and the best validation, and resume from either exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from callbacks import BestCheckpoint, StepCheckpoint
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


class Errors(Callback):
    """Replace the held-out error, so that the second validation is the best."""

    def __init__(self, errors: list[float]) -> None:
        self.errors = iter(errors)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/chosen", next(self.errors))


def run(folder: Path, steps: int, callbacks: list[Callback], start: Path | None = None) -> Any:
    data = ToyTrajectories(episodes=6, batch_size=16)
    runner = trainer(
        folder,
        steps,
        callbacks=[EMAWeightAveraging(decay=0.9, use_buffers=False), *callbacks],
        enable_checkpointing=True,
        check_val_every_n_epoch=None,
        val_check_interval=4,
    )
    stage1 = module(data)
    runner.fit(stage1, data, ckpt_path=start, weights_only=True)
    return {name: value.clone() for name, value in stage1.state_dict().items()}


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


@pytest.mark.slow
def test_the_newest_step_and_the_best_validation_are_kept_and_resume_exactly(
    tmp_path: Path,
) -> None:
    saves = [
        StepCheckpoint("p-step", 5, tmp_path),
        BestCheckpoint("p-best", "val/chosen", "max", tmp_path),
    ]
    whole = run(tmp_path, 16, [Errors([1, 3, 2, 0]), *saves])
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["p-best.ckpt", "p-step.ckpt"]
    assert (step_of(tmp_path / "p-step.ckpt"), step_of(tmp_path / "p-best.ckpt")) == (15, 8)
    for name in ("p-step", "p-best"):
        resumed = run(tmp_path / name, 16, [], tmp_path / f"{name}.ckpt")
        for key, value in whole.items():
            assert torch.equal(resumed[key], value), (name, key)


def test_a_resumed_run_in_another_folder_keeps_what_was_best(tmp_path: Path) -> None:
    first, second = (BestCheckpoint("b", "val/chosen", "max", tmp_path / n) for n in "xy")
    run(tmp_path, 8, [Errors([1, 3]), first])
    run(tmp_path, 16, [Errors([2, 4]), second], tmp_path / "x/b.ckpt")
    assert step_of(tmp_path / "x/b.ckpt") == 8  # the other run's file stays
    assert step_of(tmp_path / "y/b.ckpt") == 16
    assert float(second.best_model_score or 0) == 4


def test_validations_without_the_value_save_nothing(tmp_path: Path) -> None:
    run(tmp_path, 8, [BestCheckpoint("b", "rollout/success_rate", "max", tmp_path)])
    assert list(tmp_path.glob("*.ckpt")) == []
