"""Run Stage 1 on two ranks; the second has a fault at its third step."""

import os
import signal
import sys
from pathlib import Path

from lightning import LightningModule, Trainer

from actionprior.training.stop import StopBetweenSteps
from tests.helpers.stage1_runs import Spoil, module, trainer
from tests.helpers.synthetic import ToyTrajectories


class Fault(Spoil):
    """Cause a fault on the second rank: ``nan`` in its batch, or a ``sigterm``."""

    def __init__(self, fault: str) -> None:
        super().__init__({2})
        self.fault = fault

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, *args: object
    ) -> None:
        if trainer.global_rank == 0 or self.fault != "nan":
            self.steps = set()
        super().on_train_batch_start(trainer, module, *args)

    def on_before_optimizer_step(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 2 and self.fault == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)


def main(fault: str, folder: Path) -> None:
    data, seen = ToyTrajectories(episodes=6, batch_size=8), Fault(fault)
    callbacks = [seen, Report(folder), StopBetweenSteps()]
    # A forked rank that ends without a result would leave the first process waiting for it.
    strategy = "ddp" if fault == "sigterm" else "ddp_fork"
    runner = trainer(
        folder, 6, devices=2, strategy=strategy, limit_val_batches=0, callbacks=callbacks
    )
    runner.fit(module(data), data)


class Report(Fault):
    """Write a rank's last metrics and weights to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__("")
        self.folder, self.steps = folder, set()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        kept = bool((self.weights[1] == self.weights[2]).all())
        report = f"{self.rows[-1]['train/skipped_steps']} {kept} {self.weights[-1].double().sum()}"
        (self.folder / f"rank{trainer.global_rank}").write_text(report)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
