"""Errors and smoothness of predicted chunks in the robot's units, per robot and feature group.

Axes: B batch, H steps, A action slots, E embodiments.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from actionprior.batch import TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, Embodiment
from actionprior.embodiment.normalization import Normalizer

COPY_LAST, UNTRAINED = "copy_last", "untrained"
BASELINES = (COPY_LAST, UNTRAINED)
"""Simple predictions of chunks, whose errors are logged beside those of a model."""


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


class HeldOutErrors(nn.Module):
    """Errors of predicted chunks and of baselines, under the names of the log.

    Args:
        embodiments: Robots of the chunks.
        baselines: Names of the baselines, some of ``BASELINES``.
    """

    def __init__(self, embodiments: list[Embodiment], baselines: Sequence[str]) -> None:
        super().__init__()
        self.baselines = nn.ModuleDict({name: ChunkError(embodiments) for name in baselines})
        self.predicted = ChunkError(embodiments)

    def update(
        self,
        predicted_BHA: Tensor,
        baselines: Mapping[str, Tensor],
        window: TrajectoryBatch,
        normalizer: Normalizer,
    ) -> None:
        """Add a batch of chunks.

        Args:
            predicted_BHA: Predicted chunks in relative form and robot units.
            baselines: Chunks of each baseline, in the same form.
            window: Recorded windows.
            normalizer: Statistics of the robots.
        """
        target_BHA, mask_BHA = normalizer.relative_action(window), normalizer.action_mask(window)
        self.predicted.update(predicted_BHA, target_BHA, mask_BHA, window.embodiment_B)
        for name, metric in self._of_baselines().items():
            metric.update(baselines[name], target_BHA, mask_BHA, window.embodiment_B)

    def compute(self, scale_EA: Tensor) -> dict[str, Tensor]:
        """Return all errors, and their ratios to those of the baselines.

        Args:
            scale_EA: Scale of each slot, for unit-free errors.
        """
        found, own = self.predicted.compute(), self.predicted.normalized(scale_EA)
        for name, metric in self._of_baselines().items():
            for key, value in metric.compute().items():
                found[key.replace("/mae_", f"/{name}_mae_")] = value
            for robot, value in metric.normalized(scale_EA).items():
                found[f"{robot}/error_over_{name}"] = own[robot] / value
        if own:
            found["mae_normalized"] = torch.stack(list(own.values())).mean()
        return found

    def reset(self) -> None:
        """Set all sums to zero."""
        for metric in (self.predicted, *self._of_baselines().values()):
            metric.reset()

    def _of_baselines(self) -> dict[str, ChunkError]:
        return cast(dict[str, ChunkError], dict(self.baselines.items()))


def copied_first_action(window: TrajectoryBatch, normalizer: Normalizer) -> Tensor:
    """Return chunks (B, H, A) that repeat their first recorded action, in relative form."""
    action_BHA = window.action_BHA[:, :1].expand_as(window.action_BHA)
    return normalizer.relative_action(window._replace(action_BHA=action_BHA))


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
