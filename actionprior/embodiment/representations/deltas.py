"""Changes per step of joints or of a tool's pose."""

from dataclasses import dataclass
from typing import ClassVar, override

import numpy as np

from actionprior.embodiment.arrays import DoubleArray
from actionprior.embodiment.representations import sample_times
from actionprior.embodiment.representations.base import ActionRepresentation
from actionprior.embodiment.representations.relative_forms import RUNNING_SUM, RelativeForm
from actionprior.embodiment.representations.sample_times import SampleTimes


@dataclass(frozen=True)
class ChangePerStep(ActionRepresentation):
    """Change during one step, learnt as its running sum along the chunk."""

    is_change: ClassVar[bool] = True

    @property
    @override
    def relative_form(self) -> RelativeForm:
        return RUNNING_SUM

    @property
    @override
    def noise_form(self) -> RelativeForm:
        return RUNNING_SUM

    @override
    def resample(self, values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
        return sample_times.keep_sums(values_ND, times)

    @override
    def smooth_path(self, values_TD: DoubleArray) -> DoubleArray | None:
        return np.cumsum(values_TD, 0)


@dataclass(frozen=True)
class JointChange(ChangePerStep):
    """Changes of joints."""

    name: ClassVar[str] = "joint_delta"


@dataclass(frozen=True)
class EndEffectorChange(ChangePerStep):
    """Changes of a tool's pose."""

    name: ClassVar[str] = "end_effector_delta"
