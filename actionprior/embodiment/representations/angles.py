"""Angles of joints that turn without a limit, as states that do not jump."""

from dataclasses import dataclass
from typing import ClassVar, override

import numpy as np

from actionprior.embodiment.arrays import FloatArray
from actionprior.embodiment.errors import EmbodimentError
from actionprior.embodiment.representations.base import StateRepresentation


@dataclass(frozen=True)
class AngleSincos(StateRepresentation):
    """Measured angles in radians as sine and cosine: two entries per feature."""

    name: ClassVar[str] = "angle_sincos"
    encodes: ClassVar[bool] = True

    @classmethod
    @override
    def slot_width(cls, features: int) -> int:
        return 2 * features

    @property
    @override
    def period(self) -> float | None:
        return 2 * np.pi

    @override
    def check(self, where: str) -> None:
        super().check(where)
        if self.unit != "rad":
            raise EmbodimentError(
                f"{where}: angle_sincos needs unit 'rad', found {self.unit!r}; for degrees use "
                "'wrapped_angle', or 'position' if the joint does not pass ±180°"
            )

    @override
    def encode(self, values: FloatArray) -> FloatArray:
        pairs = np.stack([np.sin(values), np.cos(values)], axis=-1)
        return pairs.reshape(*values.shape[:-1], 2 * values.shape[-1])

    @override
    def entry_names(self, features: list[str], group: str) -> list[str]:
        return [f"{part}({feature})" for feature in features for part in ("sin", "cos")]
