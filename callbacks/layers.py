"""Save memory by recomputing layers, or time by compiling them."""

from functools import partial
from typing import override

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.utils.checkpoint import checkpoint

from actionprior.training.layers import repeated_layers


class CheckpointActivations(Callback):
    """Activation checkpointing: keep only each layer's input and recompute the rest backwards.

    This costs about a third more arithmetic, and memory hardly grows with depth (arXiv 1604.06174,
    Sec. 3). The result of training is the same.
    """

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wrap each layer once."""
        if stage != "fit":
            return
        for layer in repeated_layers(pl_module):
            if not isinstance(layer.forward, partial):
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


class CompileLayers(Callback):
    """Compile each repeated layer with ``torch.compile``. Layers of a stack share one compilation.

    The names of weights do not change, so checkpoints fit runs with and without this callback.
    """

    def __init__(self, backend: str = "inductor", dynamic: bool | None = None) -> None:
        """Create the callback.

        Args:
            backend: Backend of ``torch.compile``.
            dynamic: True compiles for varying sizes. None does so once a size has varied.
        """
        self.backend, self.dynamic = backend, dynamic

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Mark the layers, which are compiled when they first run."""
        for layer in repeated_layers(pl_module):
            layer.compile(backend=self.backend, dynamic=self.dynamic)
