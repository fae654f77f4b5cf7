"""Forms in which actions are learnt: difference, running sum, shorter way round, turn.

Axes: B batch, H steps of a chunk, n action entries, N predictions of one step.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, override

import torch
from torch import Tensor

from actionprior.embodiment import rotations
from actionprior.embodiment.arrays import FloatArray


class RelativeForm(ABC):
    """Reversible map from the commands of a chunk to the values that the flow is learnt on.

    A form works entry by entry on any number of entries n, so that the normaliser applies it
    once for all robots and masks the result. With ``spans_group``, n is one group's entries.
    Two forms that map the same way must compare equal (frozen dataclasses do).
    """

    spans_group: ClassVar[bool] = False

    @abstractmethod
    def relative(self, action_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        """Learnt form (B, H, n) of commands, given the chunk's reference."""

    @abstractmethod
    def absolute(self, relative_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        """Commands (B, H, n): the inverse of ``relative``."""

    def path(self, action_BHn: Tensor) -> Tensor:
        """Place after each command (B, H, n): the sum of changes, or the target itself."""
        return action_BHn

    def commands(self, path_BHn: Tensor) -> Tensor:
        """Inverse of ``path``."""
        return path_BHn

    def travel(self, action_BHn: Tensor, step_mask_BH1: Tensor) -> Tensor:
        """Peak-to-peak motion (B, n) over a window whose padding repeats its last frame."""
        return _peak_to_peak(action_BHn)

    def average(self, values_Nn: FloatArray, weight_N1: FloatArray) -> FloatArray:
        """Weighted mean (n,) of predictions of one step, oldest first; the weights sum to 1."""
        mean_n: FloatArray = (weight_N1 * values_Nn).sum(0)
        return mean_n

    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        """Signed distance (..., n) from the second command to the first; 0 where they agree."""
        return first - second


@dataclass(frozen=True)
class Difference(RelativeForm):
    """Difference from the reference, which is zero for what is learnt absolute."""

    @override
    def relative(self, action_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        return action_BHn - reference_B1n

    @override
    def absolute(self, relative_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        return relative_BHn + reference_B1n


@dataclass(frozen=True)
class RunningSum(RelativeForm):
    """Sum of the changes up to each step, so that an error at one step stays at that step."""

    @override
    def relative(self, action_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        return self.path(action_BHn)

    @override
    def absolute(self, relative_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        return self.commands(relative_BHn)

    @override
    def path(self, action_BHn: Tensor) -> Tensor:
        return action_BHn.cumsum(dim=1)

    @override
    def commands(self, path_BHn: Tensor) -> Tensor:
        return torch.diff(path_BHn, dim=1, prepend=torch.zeros_like(path_BHn[:, :1]))

    @override
    def travel(self, action_BHn: Tensor, step_mask_BH1: Tensor) -> Tensor:
        # Padding repeats the last change, which was made once only.
        sums_BHn = self.path(action_BHn * step_mask_BH1)
        # The path starts at zero, before the first change.
        return _peak_to_peak(sums_BHn).maximum(sums_BHn.abs().amax(1))


@dataclass(frozen=True)
class ShorterWay(Difference):
    """Difference from the reference, the shorter way round.

    Commands are continuous with the reference: a joint that crosses half a turn is commanded
    beyond it, and does not turn back a whole turn.

    Attributes:
        period: Value of a whole turn.
    """

    period: float

    @override
    def relative(self, action_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        way_BHn = action_BHn - reference_B1n
        # The remainder rounds: differences of less than half a turn stay exact.
        beyond_BHn = way_BHn.abs() > self.period / 2
        return torch.where(beyond_BHn, rotations.wrapped(way_BHn, self.period), way_BHn)

    @override
    def travel(self, action_BHn: Tensor, step_mask_BH1: Tensor) -> Tensor:
        return _peak_to_peak(self.relative(action_BHn, action_BHn[:, :1]))

    @override
    def average(self, values_Nn: FloatArray, weight_N1: FloatArray) -> FloatArray:
        newest_n = values_Nn[-1]
        way_Nn = self.apart(torch.from_numpy(values_Nn), torch.from_numpy(newest_n)).numpy()
        mean_n: FloatArray = newest_n + (weight_N1 * way_Nn).sum(0)
        return mean_n

    @override
    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        return rotations.wrapped(first - second, self.period)


@dataclass(frozen=True)
class Turn(RelativeForm):
    """Turn from the reference orientation, in its frame, as a rotation vector."""

    spans_group: ClassVar[bool] = True

    @override
    def relative(self, action_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        return rotations.relative_vector(action_BHn, reference_B1n)

    @override
    def absolute(self, relative_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        return rotations.absolute_vector(relative_BHn, reference_B1n)

    @override
    def travel(self, action_BHn: Tensor, step_mask_BH1: Tensor) -> Tensor:
        # From the first step's orientation: a rotation vector itself jumps at half a turn.
        return _peak_to_peak(self.relative(action_BHn, action_BHn[:, :1]))

    @override
    def average(self, values_Nn: FloatArray, weight_N1: FloatArray) -> FloatArray:
        vectors_Nn = torch.from_numpy(values_Nn)
        turn_Nn = rotations.relative_vector(vectors_Nn, vectors_Nn[-1:])
        turn_n = (torch.from_numpy(weight_N1) * turn_Nn).sum(0)
        mean_n: FloatArray = rotations.absolute_vector(turn_n, vectors_Nn[-1]).numpy()
        return mean_n

    @override
    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        return rotations.relative_vector(first, second)


def _peak_to_peak(values_BHn: Tensor) -> Tensor:
    return values_BHn.amax(1) - values_BHn.amin(1)


DIFFERENCE = Difference()
RUNNING_SUM = RunningSum()
TURN = Turn()
