"""Ranges of the actions and states that a robot's training windows hold.

Axes: B batch, H steps, A = 37 action slots, S = 74 state slots.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from actionprior.batch import TrajectoryBatch
from actionprior.embodiment.arrays import FloatArray
from actionprior.embodiment.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment


class RecordedRanges(NamedTuple):
    """Lowest and highest recorded values, and the largest change from one step to the next."""

    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)
    action_step: FloatArray  # (A,)
    state_low: FloatArray  # (S,)
    state_high: FloatArray  # (S,)

    @classmethod
    def of_windows(cls, windows: TrajectoryBatch) -> Self:
        """Measure windows of one robot, of which at least one step is inside its episode."""
        inside_BH = windows.step_mask_BH
        action_NA, state_NS = windows.action_BHA[inside_BH], windows.state_BHS[inside_BH]
        step_BHA = windows.action_BHA.diff(dim=1).abs()
        step_NA = step_BHA[inside_BH[:, 1:] & inside_BH[:, :-1]].numpy()
        none = np.zeros((1, ACTION_WIDTH), dtype=np.float32)
        return cls(
            action_NA.amin(0).numpy(),
            action_NA.amax(0).numpy(),
            np.concatenate([none, step_NA]).max(0),
            state_NS.amin(0).numpy(),
            state_NS.amax(0).numpy(),
        )

    def joined(self, other: "RecordedRanges") -> "RecordedRanges":
        """Return the ranges of both."""
        return RecordedRanges(
            np.minimum(self.action_low, other.action_low),
            np.maximum(self.action_high, other.action_high),
            np.maximum(self.action_step, other.action_step),
            np.minimum(self.state_low, other.state_low),
            np.maximum(self.state_high, other.state_high),
        )

    def to_plain(self) -> dict[str, list[float]]:
        """Return plain data for a checkpoint."""
        return {name: value.tolist() for name, value in self._asdict().items()}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_plain`` returned.

        Raises:
            ValueError: A value is missing, of another length or not finite.
        """
        arrays = {name: np.array(data.get(name), dtype=np.float32) for name in cls._fields}
        for name, array in arrays.items():
            width = STATE_WIDTH if name.startswith("state") else ACTION_WIDTH
            if array.shape != (width,) or not np.isfinite(array).all():
                raise ValueError(f"ranges.{name} is no list of {width} finite numbers")
        return cls(**arrays)


def widen_ranges(
    ranges: dict[str, RecordedRanges], robots: list[Embodiment], windows: TrajectoryBatch
) -> None:
    """Widen the ranges of robots, by name, to those of training windows.

    Args:
        ranges: Ranges so far; robots without any get new ones.
        robots: Robots in the order of ``windows.embodiment_B``.
        windows: Training windows.
    """
    for row in torch.unique(windows.embodiment_B).tolist():
        mine_B = windows.embodiment_B == row
        own = TrajectoryBatch(*(part[mine_B] for part in windows))
        if own.step_mask_BH.any():
            name, found = robots[row].name, RecordedRanges.of_windows(own)
            ranges[name] = ranges[name].joined(found) if name in ranges else found
