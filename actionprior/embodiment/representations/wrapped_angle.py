"""Angles, in radians or degrees, of joints that pass the end of their range, e.g. a wrist at ±180°.

The dataset may write them within any turn (-180 to 180, 0 to 360) or beyond a turn (361). Actions
are learnt as the difference from the state, the shorter way round; states are sine and cosine.
Commands are continuous with the state from which a chunk starts: after 179° come 180° and 181°,
even if the dataset says -179°.
"""

from dataclasses import dataclass
from typing import ClassVar, override

import numpy as np
import torch
from torch import Tensor

from actionprior.embodiment.arrays import DoubleArray, FloatArray
from actionprior.embodiment.errors import EmbodimentError
from actionprior.embodiment.representations.angles import AngleSincos
from actionprior.embodiment.representations.base import Representation
from actionprior.embodiment.representations.positions import PositionTarget
from actionprior.embodiment.representations.relative_forms import RelativeForm, ShorterWay
from actionprior.embodiment.representations.sample_times import SampleTimes

PERIODS = {"rad": 2 * np.pi, "deg": 360.0}
"""Value of a whole turn in each unit."""


@dataclass(frozen=True)
class ContinuousWay(ShorterWay):
    """Way from the reference to the first command, and from each command to the next.

    Each of these steps is the shorter way round, so that a chunk may turn by more than half a turn.
    """

    @override
    def relative(self, action_BHn: Tensor, reference_B1n: Tensor) -> Tensor:
        way_BHn = action_BHn - reference_B1n
        step_BHn = torch.diff(way_BHn, dim=1, prepend=torch.zeros_like(way_BHn[:, :1]))
        # Whole turns are counted in integers: without a wrap the difference stays exact.
        return way_BHn - self.period * torch.round(step_BHn / self.period).cumsum(dim=1)


@dataclass(frozen=True)
class WrappedAngle(Representation):
    """Angles that are equal when they are a whole turn apart."""

    name: ClassVar[str] = "wrapped_angle"

    @property
    @override
    def period(self) -> float | None:
        return PERIODS[self.unit]

    @override
    def check(self, where: str) -> None:
        # Skip the check of AngleSincos, which accepts only radians.
        Representation.check(self, where)
        if self.unit not in PERIODS:
            raise EmbodimentError(
                f"{where}: a wrapped_angle's unit is 'rad' or 'deg', found {self.unit!r}"
            )

    @override
    def resample(self, values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
        first_MD, second_MD = values_ND[times.before_M], values_ND[times.after_M]
        way_MD, share_M1 = second_MD - first_MD, times.share_M[:, None]
        turns_MD = np.round(way_MD / PERIODS[self.unit]) * PERIODS[self.unit]
        # Count from the nearer sample, so that new values stay in the turn that was recorded.
        moved_MD: DoubleArray = first_MD + share_M1 * (way_MD - turns_MD)
        return np.where(share_M1 < 0.5, moved_MD, moved_MD + turns_MD)


@dataclass(frozen=True)
class WrappedAngleTarget(WrappedAngle, PositionTarget):
    """Target of a joint that passes the end of its range; it needs ``relative_to``."""

    @property
    @override
    def relative_form(self) -> RelativeForm:
        return ContinuousWay(PERIODS[self.unit])

    @property
    @override
    def noise_form(self) -> RelativeForm:
        return self.relative_form

    @override
    def check_reference(self, where: str, state: str) -> None:
        if self.reference is None:
            raise EmbodimentError(
                f"{where} is a 'wrapped_angle' without relative_to; name the state group of the "
                "same joints there, since an absolute angle would jump by a whole turn"
            )
        super().check_reference(where, state)


@dataclass(frozen=True)
class WrappedAngleState(WrappedAngle, AngleSincos):
    """Measured angle of a joint that passes the end of its range, as sine and cosine."""

    @override
    def encode(self, values: FloatArray) -> FloatArray:
        return super().encode(values * np.float32(2 * np.pi / PERIODS[self.unit]))
