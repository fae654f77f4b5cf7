"""A progress bar over the steps of a run, with its loss and speed."""

import sys
import time
from typing import Any, override

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

REFRESH_S = 0.5
LINES = 20  # lines per run in a log file


class StepBar(ProgressBar):
    """Show steps, loss and speed in one bar, or in a few lines if the output is a file.

    Lightning's bars count the batches of an epoch, which a run of so many steps does not have.
    """

    def __init__(self) -> None:
        super().__init__()
        self._on = True
        self._bar: tqdm[Any] | None = None
        self._shown = 0.0
        self._next_line = self._first = self._total = 0
        self._started = self._validating = 0.0

    @override
    def disable(self) -> None:
        """Show nothing, as on all ranks but the first."""
        self._on = False

    @override
    def enable(self) -> None:
        """Show the bar again."""
        self._on = True

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._on:
            tqdm.write(kwargs.get("sep", " ").join(map(str, args)), file=sys.stderr)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step at which the run starts."""
        if not self._on:
            return
        self._total = int(trainer.estimated_stepping_batches)
        self._first = self._next_line = trainer.global_step
        self._started, self._shown = time.monotonic(), 0.0
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self._total, initial=self._first, unit=" steps", dynamic_ncols=True
            )

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show the step, at most twice a second."""
        if not self._on:
            return
        step, now = trainer.global_step, time.monotonic()
        if self._bar is not None:
            if now - self._shown >= REFRESH_S or step >= self._total:
                self._shown = now
                self._bar.set_postfix_str(self._values(trainer, pl_module), refresh=False)
                self._bar.update(step - self._bar.n)
                self._bar.refresh()
        elif step >= self._next_line or step == self._total:
            self._next_line = step + max(1, self._total // LINES)
            speed = (step - self._first) / max(1e-9, now - self._started)
            values = self._values(trainer, pl_module)
            print(f"step {step}/{self._total}  {values}  {speed:.2f} steps/s", file=sys.stderr)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, so that the speed is that of training."""
        self._validating = time.monotonic()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._started += time.monotonic() - self._validating

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that an error stands on a line of its own."""
        self._close()

    def _values(self, trainer: Trainer, module: LightningModule) -> str:
        found = self.get_metrics(trainer, module)
        return ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found.items()
            if key != "v_num"
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
