"""Groups of a robot's features, and the slots of the unified spaces that they go to.

Source of the slot tables: arXiv 2606.26095, Table I.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from types import EllipsisType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from actionprior.embodiment import rotations
from actionprior.errors import UserError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Rows = slice | EllipsisType | npt.NDArray[np.int64]

ACTION_WIDTH = 37
STATE_WIDTH = 74

ACTION_SLOTS: dict[str, tuple[int, int]] = {
    "left_arm": (0, 7),
    "right_arm": (7, 14),
    "left_hand": (14, 20),
    "right_hand": (20, 26),
    "waist": (26, 29),
    "joints": (29, 37),
}
STATE_SLOTS: dict[str, tuple[int, int]] = {
    "end_effector": (0, 8),
    "joints": (8, 16),
    "body": (16, 74),
}

ActionRepresentation = Literal[
    "joint_position",
    "joint_delta",
    "end_effector_position",
    "end_effector_delta",
    "end_effector_rotation",
    "gripper",
]
StateRepresentation = Literal[
    "position", "angle_sincos", "rotation_quaternion", "rotation_6d", "gripper"
]
DELTAS = ("joint_delta", "end_effector_delta")
ROTATIONS = {"end_effector_rotation": 3, "rotation_quaternion": 4, "rotation_6d": 6}
"""Representations of orientations, and the entries of the slot that they take."""


class EmbodimentError(UserError):
    """An embodiment's description is wrong; the message names the robot and the feature."""


@dataclass(frozen=True)
class ActionGroup:
    """Consecutive action features that share a slot, a representation and a unit.

    Attributes:
        name: group name, e.g. ``arm``; metrics are logged under it.
        slot: key of ``ACTION_SLOTS``.
        features: the dataset's names of these entries, in slot order.
        representation: deltas are learnt as their running sum along the chunk, positions
            relative to ``relative_to``, a gripper as it is; an ``end_effector_rotation`` takes
            three entries of the slot, a rotation vector, and is learnt as the turn from
            ``relative_to``, in its frame.
        unit: of one entry, for reports (rad, m, ...). A delta's is that of its sum; a rotation's
            is rad.
        offset: first entry within the slot.
        relative_to: name of the state group (same width, same unit; for a rotation: any group of
            a rotation) whose value at the chunk's first step position-like actions are relative
            to; empty: learnt absolute.
        encoding: how the dataset writes a rotation (``rotations.encoding_width``).
    """

    name: str = ""
    slot: str = ""
    features: list[str] = field(default_factory=list)
    representation: ActionRepresentation = "joint_position"
    unit: str = ""
    offset: int = 0
    relative_to: str = ""
    encoding: str = ""

    @property
    def slot_width(self) -> int:
        """Entries taken in the slot."""
        return ROTATIONS.get(self.representation, len(self.features))


@dataclass(frozen=True)
class StateGroup:
    """Consecutive proprioceptive features that share a slot.

    ``angle_sincos`` takes two entries of the slot a feature (sine, cosine) and needs radians.
    ``rotation_quaternion`` (4 entries, w ≥ 0) and ``rotation_6d`` (6 entries, without a jump
    anywhere) are an orientation, which the dataset writes in ``encoding``.
    """

    name: str = ""
    slot: str = ""
    features: list[str] = field(default_factory=list)
    representation: StateRepresentation = "position"
    unit: str = ""
    offset: int = 0
    encoding: str = ""

    @property
    def slot_width(self) -> int:
        """Entries taken in the slot."""
        if self.representation == "angle_sincos":
            return 2 * len(self.features)
        return ROTATIONS.get(self.representation, len(self.features))


def split_groups[G: (ActionGroup, StateGroup)](
    vector: FloatArray, groups: Sequence[G]
) -> list[tuple[G, FloatArray]]:
    """Each group with its entries of a robot's vector (..., n)."""
    stops = np.cumsum([len(group.features) for group in groups]).tolist()
    return [
        (group, vector[..., stop - len(group.features) : stop])
        for group, stop in zip(groups, stops, strict=True)
    ]


def check_rotation(where: str, group: ActionGroup | StateGroup) -> None:
    """Refuse an encoding that is unknown, of another width, or of no rotation.

    Raises:
        EmbodimentError: naming ``where``.
    """
    if group.representation not in ROTATIONS:
        if group.encoding:
            raise EmbodimentError(
                f"{where}: encoding {group.encoding!r} is for rotations, found "
                f"{group.representation!r}"
            )
        return
    width = rotations.encoding_width(group.encoding)
    if width is None:
        raise EmbodimentError(
            f"{where}: encoding {group.encoding!r} of a rotation is unknown; expected one of "
            f"{rotations.known_encodings()}"
        )
    if len(group.features) != width:
        raise EmbodimentError(
            f"{where} has {len(group.features)} features, but {group.encoding!r} takes {width}"
        )
    if group.unit != "rad":
        raise EmbodimentError(f"{where}: a rotation's unit is 'rad', found {group.unit!r}")


def group_from_dict[G: (ActionGroup, StateGroup)](kind: type[G], data: G | dict[str, Any]) -> G:
    """A group of plain data; one that is a group already is left as it is.

    Raises:
        EmbodimentError: an unknown key.
    """
    if not isinstance(data, dict):
        return data
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(data) - known):
        raise EmbodimentError(f"group {data.get('name')!r} has unknown keys {unknown}")
    return kind(**data)
