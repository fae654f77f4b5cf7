"""Orientations, in any of the encodings that ``rotations`` knows."""

from dataclasses import dataclass
from typing import ClassVar, override

import numpy as np
import torch

from actionprior.embodiment import rotations
from actionprior.embodiment.arrays import BoolArray, DoubleArray, FloatArray
from actionprior.embodiment.errors import EmbodimentError
from actionprior.embodiment.representations.base import (
    ActionRepresentation,
    Representation,
    StateRepresentation,
)
from actionprior.embodiment.representations.relative_forms import TURN, RelativeForm
from actionprior.embodiment.representations.sample_times import SampleTimes


@dataclass(frozen=True)
class Orientation(Representation):
    """One orientation; the unified entries are in ``unified_encoding``."""

    is_rotation: ClassVar[bool] = True
    encodes: ClassVar[bool] = True
    meaningless: ClassVar[str] = "no orientation"
    unified_encoding: ClassVar[str]

    @classmethod
    @override
    def slot_width(cls, features: int) -> int:
        width = rotations.encoding_width(cls.unified_encoding)
        return features if width is None else width

    @override
    def check(self, where: str) -> None:
        width = rotations.encoding_width(self.encoding)
        if width is None:
            raise EmbodimentError(
                f"{where}: encoding {self.encoding!r} of a rotation is unknown; expected one of "
                f"{rotations.known_encodings()}"
            )
        if self.features != width:
            raise EmbodimentError(
                f"{where} has {self.features} features, but {self.encoding!r} takes {width}"
            )
        if self.unit != "rad":
            raise EmbodimentError(f"{where}: a rotation's unit is 'rad', found {self.unit!r}")

    @override
    def encode(self, values: FloatArray) -> FloatArray:
        return _rewrite(values, self.encoding, self.unified_encoding)

    @override
    def entry_names(self, features: list[str], group: str) -> list[str]:
        return [f"{group}[{k}]" for k in range(self.slot_width(len(features)))]

    @override
    def resample(self, values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
        turns = rotations.to_quaternion(torch.from_numpy(values_ND), self.encoding)
        share_M = torch.from_numpy(times.share_M)
        turned = rotations.between(turns[times.before_M], turns[times.after_M], share_M)
        new_MD = rotations.from_quaternion(turned, self.encoding).numpy()
        return np.where(times.share_M[:, None] == 0, values_ND[times.before_M], new_MD)

    @override
    def unusable(self, values_ND: FloatArray) -> BoolArray:
        return rotations.no_turn(values_ND, self.encoding)


@dataclass(frozen=True)
class EndEffectorTurnTarget(Orientation, ActionRepresentation):
    """Target of a tool's orientation, learnt as the turn from the state, in its frame."""

    name: ClassVar[str] = "end_effector_rotation"
    unified_encoding: ClassVar[str] = "axis_angle"
    may_be_relative: ClassVar[bool] = True

    @property
    @override
    def relative_form(self) -> RelativeForm:
        return TURN

    @override
    def decode(self, unified: FloatArray) -> FloatArray:
        return _rewrite(unified, self.unified_encoding, self.encoding)

    @override
    def encode_reference(self, values: FloatArray) -> FloatArray:
        source = self.encoding if self.reference is None else self.reference.encoding
        return _rewrite(values, source, self.unified_encoding)

    @override
    def smooth_path(self, values_TD: DoubleArray) -> DoubleArray | None:
        turns = rotations.to_quaternion(torch.from_numpy(values_TD), self.encoding)
        vectors = rotations.from_quaternion(turns, "axis_angle")
        path: DoubleArray = rotations.relative_vector(vectors, vectors[:1]).numpy()
        return path


@dataclass(frozen=True)
class RotationQuaternion(Orientation, StateRepresentation):
    """Measured orientation as a unit quaternion with w ≥ 0: 4 entries."""

    name: ClassVar[str] = "rotation_quaternion"
    unified_encoding: ClassVar[str] = "quaternion_xyzw"


@dataclass(frozen=True)
class Rotation6d(Orientation, StateRepresentation):
    """Measured orientation as two columns of its matrix: 6 entries, without a jump anywhere."""

    name: ClassVar[str] = "rotation_6d"
    unified_encoding: ClassVar[str] = "rotation_6d"


def _rewrite(values: FloatArray, source: str, target: str) -> FloatArray:
    """Convert orientations (..., k) to another encoding; computed in double precision."""
    quaternion = rotations.to_quaternion(torch.from_numpy(np.asarray(values, np.float64)), source)
    turned: FloatArray = rotations.from_quaternion(quaternion, target).numpy().astype(np.float32)
    return turned
