"""Low-rank updates of frozen weights (LoRA, arXiv 2106.09685).

A parametrisation of the weight rather than a wrapped layer: ``nn.MultiheadAttention``, of which
open_clip is made, never calls its projections but reads their weights, so that a wrapper there
would train nothing. It also merges with torch's own means and leaves the layer's class alone.

Axes: O outputs, I inputs, R rank.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W + alpha / R · up · down; nought at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Create the update.

        Args:
            weight: W, (O, I) or a convolution's (O, I, rows, columns).
            rank: R.
            alpha: its size at a given learning rate, whatever the rank.
        """
        super().__init__()
        self.scale = alpha / rank
        self.down_RI = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.up_OR = nn.Parameter(weight.new_zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.down_RI, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight, of W's shape."""
        return weight + self.scale * (self.up_OR @ self.down_RI).view_as(weight)


class Layer(NamedTuple):
    """A weight that can be updated, and what its layer is called."""

    name: str
    module: nn.Module
    tensor: str
    linear: bool  # or a 1×1 convolution, which is the same

    def is_called(self, target: str) -> bool:
        """Whether ``target`` is its name or the end of it, e.g. ``fc1`` or ``mlp.fc1``."""
        return f".{self.name}".endswith(f".{target}")


def updatable(tower: nn.Module) -> list[Layer]:
    """The layers of a tower whose weights train and can be updated; no grouped convolutions."""
    return [e for e in _layers(tower) if e.module.get_parameter(e.tensor).requires_grad]


def _layers(tower: nn.Module) -> Iterator[Layer]:
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear):
            yield Layer(name, module, "weight", linear=True)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            yield Layer(name, module, "weight", linear=module.kernel_size == (1, 1))
        elif isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
            yield Layer(f"{name}.in_proj", module, "in_proj_weight", linear=True)


def add_lora(tower: nn.Module, layers: Sequence[Layer], rank: int, alpha: float) -> None:
    """Freeze a tower, and let low-rank updates of some of its weights train."""
    tower.requires_grad_(False)
    for layer in layers:
        update = LowRank(layer.module.get_parameter(layer.tensor), rank, alpha)
        parametrize.register_parametrization(layer.module, layer.tensor, update)


@torch.no_grad()
def merge_lora(module: nn.Module) -> None:
    """Fold every update into its weight: same output, plain layers."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            for tensor in list(layer.parametrizations):  # type: ignore[arg-type]  # a ModuleDict
                parametrize.remove_parametrizations(layer, tensor, leave_parametrized=True)
