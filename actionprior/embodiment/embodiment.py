"""A robot's features and where they live in the unified action and state spaces.

Axes: A = 37 action slots, S = 74 state slots.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, get_args

import numpy as np
import torch

from actionprior.embodiment import rotations
from actionprior.embodiment.feature_groups import (
    ACTION_SLOTS,
    ACTION_WIDTH,
    DELTAS,
    ROTATIONS,
    STATE_SLOTS,
    STATE_WIDTH,
    ActionGroup,
    ActionRepresentation,
    BoolArray,
    EmbodimentError,
    FloatArray,
    Rows,
    StateGroup,
    StateRepresentation,
    check_rotation,
    group_from_dict,
    split_groups,
)

__all__ = [
    "ACTION_WIDTH",
    "DELTAS",
    "ROTATIONS",
    "STATE_WIDTH",
    "ActionGroup",
    "BoolArray",
    "Embodiment",
    "EmbodimentError",
    "FloatArray",
    "StateGroup",
]


@dataclass
class Embodiment:
    """One robot: its action and state features in the unified spaces, its cameras, its rate.

    Attributes:
        name: unique among the robots of a run.
        control_hz: control rate [Hz]; must equal the frame rate of its datasets.
        action: groups in the order of the dataset's ``action_key`` vector's use; each feature
            named once.
        state: likewise for ``state_key``.
        cameras: the dataset's image keys, in the order in which a policy sees them.
        ignored: features of the dataset that are left out on purpose (all others must be mapped).

    Raises:
        EmbodimentError: unknown slot, overlap, group wider than its slot, a feature named twice,
            a bad representation, or a ``relative_to`` that does not fit.
    """

    name: str = ""
    control_hz: float = 0.0
    action: list[ActionGroup] = field(default_factory=list)
    state: list[StateGroup] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    action_key: str = "action"
    state_key: str = "observation.state"

    def __post_init__(self) -> None:
        if not self.name:
            raise EmbodimentError("an embodiment has no name; give it a unique one")
        if not self.control_hz > 0:
            raise EmbodimentError(
                f"embodiment {self.name!r}: control_hz is {self.control_hz}, expected above 0"
            )
        if not self.action:
            raise EmbodimentError(
                f"embodiment {self.name!r} has no action group; give at least one"
            )
        self._check_groups("action", self.action, ACTION_SLOTS)
        self._check_groups("state", self.state, STATE_SLOTS)
        self._check_representations()

    # ---- layout -------------------------------------------------------------------------

    @property
    def action_features(self) -> list[str]:
        """Names of the robot's action vector, group by group: n_a of them."""
        return [f for group in self.action for f in group.features]

    @property
    def state_features(self) -> list[str]:
        """Names of the robot's state vector, group by group: n_s of them."""
        return [f for group in self.state for f in group.features]

    def action_slots(self, group: ActionGroup) -> slice:
        """Unified entries of one action group."""
        start = ACTION_SLOTS[group.slot][0] + group.offset
        return slice(start, start + group.slot_width)

    def state_slots(self, group: StateGroup) -> slice:
        """Unified entries of one state group."""
        start = STATE_SLOTS[group.slot][0] + group.offset
        return slice(start, start + group.slot_width)

    def action_mask(self) -> BoolArray:
        """(37,) True where this robot has an action."""
        return self._mask(ACTION_WIDTH, [self.action_slots(g) for g in self.action])

    def state_mask(self) -> BoolArray:
        """(74,) True where this robot has a state."""
        return self._mask(STATE_WIDTH, [self.state_slots(g) for g in self.state])

    def delta_mask(self) -> BoolArray:
        """(37,) True where actions are per-step deltas, learnt as their running sum."""
        deltas = [g for g in self.action if g.representation in DELTAS]
        return self._mask(ACTION_WIDTH, [self.action_slots(g) for g in deltas])

    def rotation_starts(self) -> list[int]:
        """First of the three unified entries of each action that is a rotation vector."""
        turns = [g for g in self.action if g.representation in ROTATIONS]
        return [self.action_slots(g).start for g in turns]

    def angle_mask(self) -> BoolArray:
        """(37,) True where actions are relative to an ``angle_sincos``: the shorter way round."""
        around = {g.name for g in self.state if g.representation == "angle_sincos"}
        angles = [g for g in self.action if g.relative_to in around]
        return self._mask(ACTION_WIDTH, [self.action_slots(g) for g in angles])

    # ---- robot vectors <-> unified vectors ------------------------------------------------

    def action_to_unified(self, action: FloatArray) -> FloatArray:
        """(..., n_a) in ``action_features`` order → (..., 37)."""
        unified = np.zeros((*action.shape[:-1], ACTION_WIDTH), dtype=np.float32)
        self.fill_actions(action, unified, ...)
        return unified

    def fill_actions(self, action: FloatArray, unified: FloatArray, rows: Rows) -> None:
        """Write (..., n_a) into the robot's slots of ``rows`` of (..., 37); others are left."""
        self._check_width("action", action.shape[-1], len(self.action_features))
        if any(group.representation in ROTATIONS for group in self.action):
            parts = []
            for group, values in split_groups(action, self.action):
                if group.representation in ROTATIONS:
                    values = _turn(values, group.encoding, "axis_angle")
                parts.append(values)
            action = np.concatenate(parts, axis=-1)
        _put(action, unified, [self.action_slots(group) for group in self.action], rows)

    def action_from_unified(self, unified: FloatArray) -> FloatArray:
        """(..., 37) → (..., n_a), the inverse of ``action_to_unified``."""
        parts = []
        for group in self.action:
            values = unified[..., self.action_slots(group)]
            if group.representation in ROTATIONS:
                values = _turn(values, "axis_angle", group.encoding)
            parts.append(values)
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def state_to_unified(self, state: FloatArray) -> FloatArray:
        """(..., n_s) in ``state_features`` order → (..., 74)."""
        unified = np.zeros((*state.shape[:-1], STATE_WIDTH), dtype=np.float32)
        self.fill_states(state, unified, ...)
        return unified

    def fill_states(self, state: FloatArray, unified: FloatArray, rows: Rows) -> None:
        """Write (..., n_s) into the robot's slots of ``rows`` of (..., 74); others are left."""
        self._check_width("state", state.shape[-1], len(self.state_features))
        if any(
            g.representation == "angle_sincos" or g.representation in ROTATIONS for g in self.state
        ):
            parts = []
            for group, values in split_groups(state, self.state):
                if group.representation == "angle_sincos":
                    pairs = np.stack([np.sin(values), np.cos(values)], axis=-1)
                    values = pairs.reshape(*values.shape[:-1], 2 * values.shape[-1])
                elif group.representation in ROTATIONS:
                    form = "quaternion_xyzw" if group.slot_width == 4 else "rotation_6d"
                    values = _turn(values, group.encoding, form)
                parts.append(values)
            state = np.concatenate(parts, axis=-1)
        _put(state, unified, [self.state_slots(group) for group in self.state], rows)

    def reference(self, state: FloatArray) -> FloatArray:
        """What position-like actions of a chunk are relative to, from its first state.

        (..., n_s) → (..., 37); zero for deltas, grippers and absolute groups.
        """
        reference = np.zeros((*state.shape[:-1], ACTION_WIDTH), dtype=np.float32)
        part_of = {group.name: (group, values) for group, values in split_groups(state, self.state)}
        for group in self.action:
            if not group.relative_to:
                continue
            source, values = part_of[group.relative_to]
            if group.representation in ROTATIONS:
                values = _turn(values, source.encoding, "axis_angle")
            reference[..., self.action_slots(group)] = values
        return reference

    # ---- plain data -----------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data for checkpoints and recipes; a subclass's own fields are left out."""
        names = {f.name for f in fields(Embodiment)}
        return {key: value for key, value in asdict(self).items() if key in names}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of ``to_dict``.

        Raises:
            EmbodimentError: an unknown key, or what the constructor refuses.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise EmbodimentError(f"embodiment {data.get('name')!r} has unknown keys {unknown}")
        values = dict(data)
        values["action"] = [group_from_dict(ActionGroup, g) for g in data.get("action", [])]
        values["state"] = [group_from_dict(StateGroup, g) for g in data.get("state", [])]
        return cls(**values)

    def differences(self, other: "Embodiment") -> list[str]:
        """What keeps a prior trained on ``other`` from serving this robot, in words."""
        found = []
        for key in ("control_hz", "action", "state"):
            mine, theirs = self.to_dict()[key], other.to_dict()[key]
            if mine != theirs:
                found.append(f"{key} is {theirs!r} there and {mine!r} here")
        return found

    # ---- checks ---------------------------------------------------------------------------

    @staticmethod
    def _mask(width: int, slices: list[slice]) -> BoolArray:
        mask = np.zeros(width, dtype=np.bool_)
        for s in slices:
            mask[s] = True
        return mask

    def _check_width(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise EmbodimentError(
                f"embodiment {self.name!r}: {what} vector has {found} entries, expected {expected}"
            )

    def _check_groups(
        self,
        kind: str,
        groups: list[ActionGroup] | list[StateGroup],
        slots: dict[str, tuple[int, int]],
    ) -> None:
        where = f"embodiment {self.name!r}, {kind}"
        taken: dict[int, str] = {}
        seen: set[str] = set()
        names: set[str] = set()
        for group in groups:
            if not group.name or group.name in names:
                raise EmbodimentError(f"{where}: group name {group.name!r} is empty or used twice")
            names.add(group.name)
            if group.slot not in slots:
                raise EmbodimentError(
                    f"{where} group {group.name!r}: slot {group.slot!r} is unknown; "
                    f"expected one of {sorted(slots)}"
                )
            if not group.features:
                raise EmbodimentError(f"{where} group {group.name!r} names no feature")
            width = group.slot_width
            start, stop = slots[group.slot]
            if group.offset < 0 or start + group.offset + width > stop:
                raise EmbodimentError(
                    f"{where} group {group.name!r} ({', '.join(group.features)}) needs {width} "
                    f"entries from offset {group.offset}, but {group.slot!r} has {stop - start}"
                )
            for feature in group.features:
                if feature in seen:
                    raise EmbodimentError(f"{where}: feature {feature!r} is mapped twice")
                seen.add(feature)
            for entry in range(start + group.offset, start + group.offset + width):
                if entry in taken:
                    raise EmbodimentError(
                        f"{where} group {group.name!r} overlaps group {taken[entry]!r} in slot "
                        f"{group.slot!r} (unified entry {entry})"
                    )
                taken[entry] = group.name

    def _check_representations(self) -> None:
        for kind, groups, known in (
            ("action", self.action, get_args(ActionRepresentation)),
            ("state", self.state, get_args(StateRepresentation)),
        ):
            for group in groups:
                where = f"embodiment {self.name!r}, {kind} group {group.name!r}"
                if group.representation not in known:
                    raise EmbodimentError(
                        f"{where}: representation {group.representation!r} is unknown; "
                        f"expected one of {list(known)}"
                    )
                check_rotation(where, group)
                if group.representation == "angle_sincos" and group.unit != "rad":
                    raise EmbodimentError(
                        f"{where}: angle_sincos needs unit 'rad', found {group.unit!r}; degrees go "
                        "as 'position'"
                    )
        for action in self.action:
            if action.relative_to:
                self._check_reference(action)

    def _check_reference(self, group: ActionGroup) -> None:
        where = f"embodiment {self.name!r}, action group {group.name!r}"
        states = {g.name: g for g in self.state}
        turns = group.representation in ROTATIONS
        if not turns and group.representation not in ("joint_position", "end_effector_position"):
            raise EmbodimentError(
                f"{where}: relative_to is for positions, found {group.representation!r}"
            )
        state = states.get(group.relative_to)
        if state is None:
            raise EmbodimentError(
                f"{where}: relative_to names state group {group.relative_to!r}; "
                f"expected one of {sorted(states)}"
            )
        if turns != (state.representation in ROTATIONS):
            raise EmbodimentError(
                f"{where} is {group.representation!r}, but its relative_to {state.name!r} is "
                f"{state.representation!r}: one is a rotation, the other is not"
            )
        if not turns and (len(state.features) != len(group.features) or state.unit != group.unit):
            raise EmbodimentError(
                f"{where} has {len(group.features)} features in {group.unit!r}, but its "
                f"relative_to {state.name!r} has {len(state.features)} in {state.unit!r}"
            )


def _turn(values: FloatArray, source: str, target: str) -> FloatArray:
    """Orientations (..., k) from one encoding to another, in double precision between."""
    quaternion = rotations.to_quaternion(torch.from_numpy(np.asarray(values, np.float64)), source)
    turned: FloatArray = rotations.from_quaternion(quaternion, target).numpy().astype(np.float32)
    return turned


def _put(values: FloatArray, unified: FloatArray, slots: list[slice], rows: Rows) -> None:
    """Columns of ``values``, one after the other, into ``slots`` of ``rows`` of ``unified``."""
    joined: list[tuple[slice, slice]] = []
    column = 0
    for into in slots:
        start, stop = column, column + into.stop - into.start
        if joined and joined[-1][0].stop == into.start:  # neighbours go together
            into, start = slice(joined[-1][0].start, into.stop), joined.pop()[1].start
        joined.append((into, slice(start, stop)))
        column = stop
    for into, columns in joined:
        target, source = unified[..., into], values[..., columns]
        if source.dtype == np.float32 and source.strides[-1] == source.itemsize:
            # A row as one item: several times faster than NumPy's copy of many short rows.
            item = np.dtype((np.void, source.itemsize * source.shape[-1]))
            target.view(item)[..., 0][rows] = source.view(item)[..., 0]
        else:
            target[rows] = source
