"""Settings of a run that its checkpoints record, so that a resumed run says what differs."""

import os
from collections.abc import Mapping
from typing import Any

from lightning import Trainer

from actionprior.data import EmbodiedDataModule


def run_settings(trainer: Trainer) -> dict[str, Any]:
    """Return the settings of a run by their names in a recipe, as plain data.

    Args:
        trainer: Trainer of the run, after the data are read.
    """
    settings: dict[str, Any] = {
        "trainer.precision": str(trainer.precision),
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "number of processes": trainer.world_size,
    }
    if seed := os.environ.get("PL_GLOBAL_SEED"):
        settings["seed_everything"] = int(seed)
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, EmbodiedDataModule):
        settings |= {
            "data": type(data).__name__,
            "robots of the data": ", ".join(robot.name for robot in data.embodiments),
            "number of training windows": len(data.frames.train),
            "number of held-out windows": len(data.frames.val),
            "data.batch_size": data.batch_size,
            "data.seed": data.seed,
        }
    return settings


def changed_settings(now: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """List the settings that differ from a checkpoint's; what it does not record is skipped."""
    return [
        f"{name} is {value} in the recipe and was {recorded[name]} in the checkpoint"
        for name, value in now.items()
        if name in recorded and recorded[name] != value
    ]
