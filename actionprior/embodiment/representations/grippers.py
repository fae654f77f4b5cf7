"""Grippers, as commands and as states: any range, held between samples."""

from dataclasses import dataclass
from typing import ClassVar, override

from actionprior.embodiment.arrays import DoubleArray
from actionprior.embodiment.representations import sample_times
from actionprior.embodiment.representations.base import (
    ActionRepresentation,
    Representation,
    StateRepresentation,
)
from actionprior.embodiment.representations.sample_times import SampleTimes


@dataclass(frozen=True)
class GripperValue(Representation):
    """Opening of a gripper, or the command to open and close it."""

    name: ClassVar[str] = "gripper"
    is_gripper: ClassVar[bool] = True
    may_be_ticks: ClassVar[bool] = True
    rests_at_its_limits: ClassVar[bool] = True
    lowest_normalised: ClassVar[float] = 0.0
    name_pattern: ClassVar[str] = r"grip|jaw|claw"

    @override
    def resample(self, values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
        return sample_times.hold(values_ND, times)


@dataclass(frozen=True)
class GripperCommand(GripperValue, ActionRepresentation):
    """Command of a gripper, learnt absolute."""

    aims_at_state: ClassVar[bool] = True

    @override
    def smooth_path(self, values_TD: DoubleArray) -> DoubleArray | None:
        return None


@dataclass(frozen=True)
class GripperOpening(GripperValue, StateRepresentation):
    """Measured opening of a gripper."""
