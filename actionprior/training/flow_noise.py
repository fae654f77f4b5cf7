"""Noise and flow times that a resumed run draws again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from actionprior.flow_matching import TimeLaw, sample_time
from actionprior.networks.device import to_device

EVALUATION_KEY = 900_000_007  # seeds validation noise; no training step has this number


class FlowNoise:
    """Flow times and noise that depend only on seed, step, micro-batch and rank.

    Lightning does not store the random state, so a resumed run would draw other numbers from the
    global generator. Here the number of workers has no influence either.
    """

    def __init__(self, *key: int) -> None:
        """Seed from the run's seed, which ``seed_everything`` sets, and ``key``."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        mixed = 0
        for part in (seed, *key):
            mixed = (mixed * 1_000_003 + part + 1) % (2**63 - 1)
        self.generator = torch.Generator().manual_seed(mixed)

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """Draw standard normal noise on the device of ``like``."""
        return to_device(torch.randn(*shape, generator=self.generator), like.device)

    def integers(self, count: int, most: int, like: Tensor) -> Tensor:
        """Draw integers from 0 to ``most`` (count,), uniformly, on the device of ``like``."""
        return to_device(torch.randint(most + 1, (count,), generator=self.generator), like.device)

    @contextmanager
    def for_layers(self, module: nn.Module, device: torch.device) -> Iterator[None]:
        """Context manager: dropout layers of ``module`` draw from this noise, too."""
        if not any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in module.modules()):
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=self.generator)))
            yield

    def time(self, count: int, law: TimeLaw, like: Tensor) -> Tensor:
        """Draw stratified flow times (count,) on the device of ``like``."""
        return to_device(sample_time(count, law, generator=self.generator), like.device)
