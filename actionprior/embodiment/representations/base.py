"""Base classes of representations: all that other modules ask about a group of features.

To add a representation, imitate ``wrapped_angle.py``: write a class in a file of its own and name
it in ``by_name.py``.

Axes: N frames or samples, D features of a group as the dataset has them.
"""

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actionprior.embodiment.arrays import BoolArray, DoubleArray, FloatArray
from actionprior.embodiment.errors import EmbodimentError
from actionprior.embodiment.representations import sample_times
from actionprior.embodiment.representations.relative_forms import DIFFERENCE, RelativeForm
from actionprior.embodiment.representations.sample_times import SampleTimes


@dataclass(frozen=True)
class Representation(ABC):
    """Meaning of one group's values. The defaults are those of a position.

    Attributes:
        features: Number of the dataset's features in the group.
        unit: Unit of one feature.
        encoding: How the dataset writes a rotation; empty for everything else.
        name: Value of ``representation`` in a robot's description.
        is_rotation: True if the group is one orientation.
        is_gripper: True if the values open and close a gripper.
        encodes: True if the unified entries differ from the dataset's values; otherwise
            ``encode`` and ``encode_reference`` are not called.
        may_be_ticks: True if whole numbers up to a servo's ticks are plausible values.
        rests_at_its_limits: True if values at exactly the end of their range are normal.
        lowest_normalised: Lower end of LeRobot's calibrated range; the upper end is 100.
        meaningless: Words for a row without a meaning, for messages, e.g. ``no orientation``;
            empty: every row has a meaning.
        name_pattern: Regular expression of feature names for which ``lightning describe``
            suggests this representation; empty: never.
    """

    features: int
    unit: str
    encoding: str

    name: ClassVar[str]
    is_rotation: ClassVar[bool] = False
    is_gripper: ClassVar[bool] = False
    encodes: ClassVar[bool] = False
    may_be_ticks: ClassVar[bool] = False
    rests_at_its_limits: ClassVar[bool] = False
    lowest_normalised: ClassVar[float] = -100.0
    meaningless: ClassVar[str] = ""
    name_pattern: ClassVar[str] = ""

    @property
    def period(self) -> float | None:
        """Value of a whole turn, for angles that wrap; None for everything else."""
        return None

    @classmethod
    def slot_width(cls, features: int) -> int:
        """Count the unified entries that a group of this many features takes."""
        return features

    def check(self, where: str) -> None:
        """Refuse a unit, an encoding or a number of features that does not fit.

        Raises:
            EmbodimentError: naming ``where``.
        """
        if self.encoding:
            raise EmbodimentError(
                f"{where}: encoding {self.encoding!r} is for rotations, found {self.name!r}"
            )

    def encode(self, values: FloatArray) -> FloatArray:
        """Unified entries (..., slot width) of the dataset's values (..., D)."""
        return values

    def entry_names(self, features: list[str], group: str) -> list[str]:
        """Names of the unified entries, for reports."""
        return features

    def resample(self, values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
        """Values (M, D) at the new times."""
        if self.period is None:
            return sample_times.on_a_line(values_ND, times)
        return sample_times.shorter_way(values_ND, times, self.period)

    def unusable(self, values_ND: FloatArray) -> BoolArray:
        """True (N,) for rows without a meaning, such as a quaternion of length 0."""
        return np.zeros(len(values_ND), dtype=np.bool_)

    def apart(self, first_ND: FloatArray, second_ND: FloatArray) -> FloatArray:
        """Signed distance (N, D) from the second values to the first, the shorter way round."""
        way_ND = first_ND - second_ND
        return way_ND if self.period is None else way_ND - _turns(way_ND, self.period)

    def around_their_centre(self, values_ND: FloatArray) -> FloatArray:
        """Values (N, D) within half a turn of each feature's mean, to measure their spread."""
        if self.period is None:
            return values_ND
        phase_ND = np.exp(2j * np.pi / self.period * values_ND)
        center_D = np.angle(phase_ND.mean(axis=0)) * self.period / (2 * np.pi)
        return values_ND - _turns(values_ND - center_D, self.period)


@dataclass(frozen=True)
class StateRepresentation(Representation):
    """Meaning of one state group's values."""


@dataclass(frozen=True)
class ActionRepresentation(Representation):
    """Meaning of one action group's values.

    Attributes:
        reference: The state group that actions are relative to; None: learnt absolute.
        may_be_relative: True if a description may give ``relative_to``.
        aims_at_state: True if an action is a target that its state (``relative_to``, or the group
            of the same features) approaches.
        is_change: True if a value is the change until the next frame, not a place.
    """

    reference: StateRepresentation | None = None

    may_be_relative: ClassVar[bool] = False
    aims_at_state: ClassVar[bool] = False
    is_change: ClassVar[bool] = False

    @property
    def relative_form(self) -> RelativeForm:
        """Form in which the actions are learnt, shuffled, ensembled and compared."""
        return DIFFERENCE

    @property
    def noise_form(self) -> RelativeForm:
        """Form in which a control prior's noise chunks are drawn, entry by entry."""
        return DIFFERENCE

    def decode(self, unified: FloatArray) -> FloatArray:
        """Inverse of ``encode``: commands (..., D) in the dataset's own form."""
        return unified

    def encode_reference(self, values: FloatArray) -> FloatArray:
        """Unified reference (..., slot width) from the values of the state group."""
        return values

    def smooth_path(self, values_TD: DoubleArray) -> DoubleArray | None:
        """Commanded places (T, ·) over an episode, to measure its jerk; None: not measured."""
        if self.period is None:
            return values_TD
        return np.unwrap(values_TD, axis=0, period=self.period).astype(np.float64)

    def check_reference(self, where: str, state: str) -> None:
        """Refuse a ``reference`` that the actions cannot be relative to.

        Args:
            where: Robot and action group, for the message.
            state: Name of the state group; empty if the actions are absolute.

        Raises:
            EmbodimentError: naming both groups.
        """
        reference = self.reference
        if reference is None:
            return
        if self.is_rotation != reference.is_rotation:
            raise EmbodimentError(
                f"{where} is {self.name!r}, but its relative_to {state!r} is "
                f"{reference.name!r}: one is a rotation, the other is not"
            )
        same = reference.features == self.features and reference.unit == self.unit
        if not self.is_rotation and not same:
            raise EmbodimentError(
                f"{where} has {self.features} features in {self.unit!r}, but its "
                f"relative_to {state!r} has {reference.features} in {reference.unit!r}"
            )


def _turns(way: FloatArray, period: float) -> FloatArray:
    """Multiple of ``period`` nearest to ``way``; exactly 0 within half a turn."""
    turns: FloatArray = (np.round(way / period) * period).astype(np.float32)
    return turns
