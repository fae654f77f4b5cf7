"""Save checkpoints during a run: the newest step, and the best held-out error or success."""

from pathlib import Path
from typing import Any, override

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class StepCheckpoint(ModelCheckpoint):
    """Save every few steps, in one file that each save replaces.

    A run that is killed loses at most these steps: ``--ckpt_path last`` resumes from the file.

    Args:
        filename: Name of the file, without ``.ckpt``.
        every_n_steps: Steps between two saves.
        dirpath: Folder of the file; by default ``checkpoints`` in the run's log folder.
    """

    def __init__(
        self,
        filename: str = "step",
        every_n_steps: int = 500,
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__(
            dirpath,
            filename,
            every_n_train_steps=every_n_steps,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume in the folder of this run."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class BestCheckpoint(ModelCheckpoint):
    """Save the best state that a validation has found, in one file.

    Args:
        filename: Name of the file, without ``.ckpt``.
        monitor: Logged value that decides, such as ``rollout/success_rate`` with ``mode: max``. A
            validation without this value saves nothing.
        mode: ``min`` if less is better, ``max`` if more is.
        dirpath: Folder of the file; by default ``checkpoints`` in the run's log folder.
    """

    def __init__(
        self,
        filename: str = "best",
        monitor: str = "val/mae_normalized",
        mode: str = "min",
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__(
            dirpath,
            filename,
            monitor,
            mode=mode,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this validation is the best so far."""
        if self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the best value of the run so far, although the folder may be another one."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})
