"""Progress of a resumed run in its epoch, counted in batches of the present size."""

from typing import Any

from lightning import Callback, LightningModule, Trainer


class RescaleProgress(Callback):
    """Set a resumed run's progress in its epoch, in batches of the present size.

    Lightning continues the count of the previous run. With another global batch size it would end
    the epoch too early or too late.
    """

    def __init__(self, done: int) -> None:
        self._done = done

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the number of finished batches."""
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        saved_within_a_batch = progress.processed - progress.completed
        progress.ready = progress.started = progress.processed = self._done
        progress.completed = self._done - saved_within_a_batch

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Count the epoch as begun if the run resumed between two epochs."""
        # Resumed after an epoch's last batch, Lightning does not count the next epoch as begun.
        # A checkpoint within that epoch would then count as one at its end.
        epochs: Any = trainer.fit_loop.epoch_progress
        if epochs.current.ready == epochs.current.processed:
            epochs.increment_ready()
            epochs.increment_started()
