"""Press Ctrl-C during a training."""

import os
import signal

from lightning import Callback, LightningModule, Trainer


class CtrlC(Callback):
    """Send the signal of Ctrl-C to this process at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
