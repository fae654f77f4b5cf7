"""Low-rank updates of frozen weights (LoRA, arXiv 2106.09685).

An update is a parametrisation of the weight rather than a wrapped layer. open_clip uses
``nn.MultiheadAttention``, which reads the weights of its projections without calling them, so that
wrapped projections would not train. Parametrisations also keep the layer's class, and torch can
merge them.

Axes: O outputs, I inputs, R rank.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """Updated weight W + alpha / R · up · down; the update starts at zero."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Create the update.

        Args:
            weight: Weight W, (O, I), or (O, I, rows, columns) of a convolution.
            rank: Rank R of the update.
            alpha: Scale of the update, independent of the rank.
        """
        super().__init__()
        self.scale = alpha / rank
        self.down_RI = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.up_OR = nn.Parameter(weight.new_zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.down_RI, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight, of W's shape."""
        return weight + self.scale * (self.up_OR @ self.down_RI).view_as(weight)


class UpdatableLayer(NamedTuple):
    """A weight that can be updated, and the name of its layer."""

    name: str
    module: nn.Module
    tensor: str
    linear: bool  # also True for a 1×1 convolution, which computes the same

    def is_called(self, target: str) -> bool:
        """Check whether ``target`` is the layer's name or its end, e.g. ``mlp.fc1``."""
        return f".{self.name}".endswith(f".{target}")


def updatable(tower: nn.Module) -> list[UpdatableLayer]:
    """Find the layers of a tower whose weights train and can be updated.

    Grouped convolutions are excluded.
    """
    return [e for e in _layers(tower) if e.module.get_parameter(e.tensor).requires_grad]


def _layers(tower: nn.Module) -> Iterator[UpdatableLayer]:
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear):
            yield UpdatableLayer(name, module, "weight", linear=True)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            yield UpdatableLayer(name, module, "weight", linear=module.kernel_size == (1, 1))
        elif isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
            yield UpdatableLayer(f"{name}.in_proj", module, "in_proj_weight", linear=True)


def add_lora(tower: nn.Module, layers: Sequence[UpdatableLayer], rank: int, alpha: float) -> None:
    """Freeze a tower, and add trainable low-rank updates to some of its weights."""
    tower.requires_grad_(False)
    for layer in layers:
        update = LowRank(layer.module.get_parameter(layer.tensor), rank, alpha)
        parametrize.register_parametrization(layer.module, layer.tensor, update)


@torch.no_grad()
def merge_lora(module: nn.Module) -> None:
    """Fold every update into its weight; the output stays the same, and layers become plain."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            for tensor in list(layer.parametrizations):  # type: ignore[arg-type]  # a ModuleDict
                parametrize.remove_parametrizations(layer, tensor, leave_parametrized=True)
