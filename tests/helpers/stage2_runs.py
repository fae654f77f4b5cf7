"""Callbacks that record runs of Stage 2."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from actionprior.training.sharding import full_tensor


class Log(Callback):
    """Record what every training step logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.rows.append({k: float(v) for k, v in trainer.callback_metrics.items()})


class Start(Callback):
    """Record the weights that training starts from."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.weights = {k: full_tensor(v).clone() for k, v in module.state_dict().items()}
