"""Less memory or more speed by layer: recompute what a layer computed, or compile it."""

from functools import partial
from typing import override

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.utils.checkpoint import checkpoint

from actionprior.training.layers import repeated_layers


class CheckpointActivations(Callback):
    """Keeps of each repeated layer its input alone, and computes the rest anew when going back.

    About a third more arithmetic, and memory that hardly grows with depth (arXiv 1604.06174,
    Sec. 3). What is learnt is the same.
    """

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wrap the layers, once."""
        if stage != "fit":
            return
        for layer in repeated_layers(pl_module):
            if not isinstance(layer.forward, partial):
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


class CompileLayers(Callback):
    """Puts each repeated layer through ``torch.compile``: layers of a stack share one compilation.

    The names of weights stay what they are, so a checkpoint is one of any other run.
    """

    def __init__(self, backend: str = "inductor", dynamic: bool | None = None) -> None:
        """Set up.

        Args:
            backend: of ``torch.compile``.
            dynamic: whether sizes may vary without another compilation; None: those that do.
        """
        self.backend, self.dynamic = backend, dynamic

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Mark the layers; they are compiled when they first run."""
        for layer in repeated_layers(pl_module):
            layer.compile(backend=self.backend, dynamic=self.dynamic)
