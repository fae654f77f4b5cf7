"""Groups of a robot's features, and the slots of the unified spaces that they fill.

Source of the slot tables: arXiv 2606.26095, Table I.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from actionprior.embodiment.arrays import FloatArray
from actionprior.embodiment.errors import EmbodimentError
from actionprior.embodiment.representations.base import Representation
from actionprior.embodiment.representations.by_name import (
    ACTION_REPRESENTATIONS,
    STATE_REPRESENTATIONS,
)

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


@dataclass(frozen=True)
class ActionGroup:
    """Consecutive action features that share a slot, a representation and a unit.

    Attributes:
        name: Name of the group, e.g. ``arm``; metrics are logged under it.
        slot: Key of ``ACTION_SLOTS``.
        features: The dataset's names of these entries, in slot order.
        representation: Key of ``ACTION_REPRESENTATIONS``; its class says how values are learnt,
            resampled, ensembled and checked.
        unit: Unit of one entry (rad, m, ...). A delta has the unit of its sum, a rotation rad.
        offset: First entry within the slot.
        relative_to: Name of the state group whose value at the chunk's first step the actions
            are relative to. It needs the same width and unit; for a rotation it may be any
            rotation. Empty: actions are learnt as absolute values.
        encoding: How the dataset writes a rotation (``rotations.encoding_width``).
    """

    name: str = ""
    slot: str = ""
    features: list[str] = field(default_factory=list)
    representation: str = "joint_position"
    unit: str = ""
    offset: int = 0
    relative_to: str = ""
    encoding: str = ""

    @property
    def slot_width(self) -> int:
        """Number of entries taken in the slot."""
        return _slot_width(ACTION_REPRESENTATIONS.get(self.representation), self.features)


@dataclass(frozen=True)
class StateGroup:
    """Consecutive state features that share a slot, a representation and a unit.

    Attributes:
        name: Name of the group; actions refer to it by ``relative_to``.
        slot: Key of ``STATE_SLOTS``.
        features: The dataset's names of these entries, in slot order.
        representation: Key of ``STATE_REPRESENTATIONS``; its class says how many entries of the
            slot a group takes, and in which form.
        unit: Unit of one entry (rad, m, ...).
        offset: First entry within the slot.
        encoding: How the dataset writes a rotation (``rotations.encoding_width``).
    """

    name: str = ""
    slot: str = ""
    features: list[str] = field(default_factory=list)
    representation: str = "position"
    unit: str = ""
    offset: int = 0
    encoding: str = ""

    @property
    def slot_width(self) -> int:
        """Number of entries taken in the slot."""
        return _slot_width(STATE_REPRESENTATIONS.get(self.representation), self.features)


def _slot_width(representation: type[Representation] | None, features: list[str]) -> int:
    # Accept an unknown representation here; the robot's own check refuses it.
    count = len(features)
    return count if representation is None else representation.slot_width(count)


def split_groups[G: (ActionGroup, StateGroup)](
    vector: FloatArray, groups: Sequence[G]
) -> list[tuple[G, FloatArray]]:
    """Pair each group with its entries of a robot's vector (..., n)."""
    stops = np.cumsum([len(group.features) for group in groups]).tolist()
    return [
        (group, vector[..., stop - len(group.features) : stop])
        for group, stop in zip(groups, stops, strict=True)
    ]


def group_from_dict[G: (ActionGroup, StateGroup)](kind: type[G], data: G | dict[str, Any]) -> G:
    """Build a group from plain data; return a finished group unchanged.

    Raises:
        EmbodimentError: an unknown key.
    """
    if not isinstance(data, dict):
        return data
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(data) - known):
        raise EmbodimentError(f"group {data.get('name')!r} has unknown keys {unknown}")
    return kind(**data)
