"""Errors and smoothness of predicted chunks in the robot's units, per robot and feature group.

Axes: B batch, H steps, A action slots, E embodiments.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from actionprior.embodiment import ACTION_WIDTH, Embodiment


class ChunkError(Metric):
    """Mean absolute error of chunks in relative form, over steps inside the episode.

    ``compute`` returns ``{"<robot>/mae_<group>_<unit>": value, …}``; ``normalized`` returns a
    unit-free error per robot. Robots without data are excluded.
    """

    full_state_update = False
    error_EA: Tensor
    count_EA: Tensor

    def __init__(self, embodiments: list[Embodiment], **kwargs: Any) -> None:  # noqa: ANN401  torchmetrics' own
        """Create sums for these robots; torchmetrics receives ``kwargs``."""
        super().__init__(**kwargs)
        self.embodiments = embodiments
        for name in ("error_EA", "count_EA"):
            zeros = torch.zeros(len(embodiments), ACTION_WIDTH, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(
        self, predicted_BHA: Tensor, target_BHA: Tensor, mask_BHA: Tensor, embodiment_B: Tensor
    ) -> None:
        """Add a batch of chunks in relative form and robot units."""
        error_BHA = torch.where(mask_BHA, (predicted_BHA - target_BHA).abs(), 0.0)
        self.error_EA.index_add_(0, embodiment_B, error_BHA.sum(1).double())
        self.count_EA.index_add_(0, embodiment_B, mask_BHA.sum(1).double())

    def mean_EA(self) -> Tensor:
        """Return the mean absolute error of each slot, (E, A); 0 without data."""
        return self.error_EA / self.count_EA.clamp(min=1)

    def compute(self) -> dict[str, Tensor]:
        """Return errors per group in the robot's units."""
        mean_EA, found = self.mean_EA(), {}
        for row, embodiment in enumerate(self.embodiments):
            if not bool(self.count_EA[row].any()):
                continue
            for group in embodiment.action:
                unit = f"_{group.unit}" if group.unit else ""
                value = mean_EA[row, embodiment.action_slots(group)].mean()
                found[f"{embodiment.name}/mae_{group.name}{unit}"] = value.float()
        return found

    def normalized(self, scale_EA: Tensor) -> dict[str, Tensor]:
        """Return a unit-free error per robot: the mean over its slots of error over scale."""
        ratio_EA, found = self.mean_EA() / scale_EA, {}
        for row, embodiment in enumerate(self.embodiments):
            slots = torch.from_numpy(embodiment.action_mask()).to(ratio_EA.device)
            if bool(self.count_EA[row].any()):
                found[embodiment.name] = ratio_EA[row, slots].mean().float()
        return found


class ChunkBend(nn.Module):
    """Smoothness of chunks: the mean absolute second difference along their steps.

    ``compute`` returns ``{"<robot>/bend_predicted_<group>_<unit>": value, …}`` for predicted
    chunks and ``bend_recorded_…`` for recorded ones. A policy that moves as smoothly as its
    demonstrator has the same value for both.
    """

    def __init__(self, embodiments: list[Embodiment]) -> None:
        """Create sums for these robots."""
        super().__init__()
        self.predicted, self.recorded = ChunkError(embodiments), ChunkError(embodiments)

    def update(
        self, predicted_BHA: Tensor, recorded_BHA: Tensor, mask_BHA: Tensor, embodiment_B: Tensor
    ) -> None:
        """Add a batch of chunks in relative form and robot units."""
        mask_BHA = mask_BHA[:, 2:]  # if the last of three steps is inside, all three are
        for metric, chunk_BHA in ((self.predicted, predicted_BHA), (self.recorded, recorded_BHA)):
            bend_BHA = chunk_BHA.diff(n=2, dim=1)
            metric.update(bend_BHA, torch.zeros_like(bend_BHA), mask_BHA, embodiment_B)

    def compute(self) -> dict[str, Tensor]:
        """Return second differences per group in the robot's units."""
        return {
            key.replace("/mae_", f"/bend_{name}_"): value
            for name, metric in (("predicted", self.predicted), ("recorded", self.recorded))
            for key, value in metric.compute().items()
        }

    def reset(self) -> None:
        """Set all sums to zero."""
        self.predicted.reset()
        self.recorded.reset()
