"""Update averaged weights with a few calls instead of several per tensor."""

from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def update_averages_together(module: LightningModule) -> None:
    """Let each ``EMAWeightAveraging`` of the module's trainer update all tensors together.

    The averages stay the same to the last bit.
    """
    for callback in cast(Any, module.trainer).callbacks:
        averaged = getattr(callback, "_average_model", None)
        if isinstance(callback, EMAWeightAveraging) and isinstance(averaged, AveragedModel):
            update_together(averaged, module)


def update_together(averaged: AveragedModel, model: nn.Module) -> None:
    """Speed up ``averaged.update_parameters(model)`` for an exponential average of parameters.

    Averages of buffers and averages on another device are not changed.

    Args:
        averaged: Averages, with the ``avg_fn`` of ``EMAWeightAveraging``.
        model: Model that is averaged.
    """
    averages: list[Tensor] = list(averaged.module.parameters())
    weights: list[Tensor] = list(model.parameters())
    same_kind = all(
        a.is_floating_point() and (a.dtype, a.device) == (w.dtype, w.device)
        for a, w in zip(averages, weights, strict=True)
    )
    if averaged.avg_fn is None or averaged.use_buffers or not same_kind:
        return
    # The function has no attribute for the decay, but is decay · average + (1 - decay) · weight.
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64).unbind()
    decay, rest = float(averaged.avg_fn(one, zero, 1)), float(averaged.avg_fn(zero, one, 1))
    update_singly = averaged.update_parameters

    @torch.no_grad()
    def update(current: nn.Module) -> None:
        if current is not model or not averaged.n_averaged:
            update_singly(current)
            return
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, list(torch._foreach_mul(weights, rest)))
        for average, buffer in zip(averaged.module.buffers(), current.buffers(), strict=True):
            average.copy_(buffer)
        averaged.n_averaged += 1

    averaged.update_parameters = update  # type: ignore[method-assign, assignment]  # this one only
