"""A robot's features, and their places in the unified action and state spaces.

Axes: A = 37 action slots, S = 74 state slots.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from actionprior.embodiment.arrays import BoolArray, FloatArray, SlotCopy
from actionprior.embodiment.errors import EmbodimentError
from actionprior.embodiment.feature_groups import (
    ACTION_SLOTS,
    ACTION_WIDTH,
    STATE_SLOTS,
    STATE_WIDTH,
    ActionGroup,
    StateGroup,
    group_from_dict,
    split_groups,
)
from actionprior.embodiment.representations.base import (
    ActionRepresentation,
    Representation,
    StateRepresentation,
)
from actionprior.embodiment.representations.by_name import (
    ACTION_REPRESENTATIONS,
    STATE_REPRESENTATIONS,
)
from actionprior.embodiment.representations.relative_forms import RelativeForm

__all__ = [
    "ACTION_WIDTH",
    "STATE_WIDTH",
    "ActionGroup",
    "BoolArray",
    "Embodiment",
    "EmbodimentError",
    "FloatArray",
    "SlotCopy",
    "StateGroup",
]


@dataclass
class Embodiment:
    """One robot: its action and state features in the unified spaces, its cameras, its rate.

    Attributes:
        name: Name of the robot, unique in a run.
        control_hz: Control rate [Hz]. Datasets of another frame rate are refused, unless they are
            resampled to it.
        action: Groups of the dataset's ``action_key`` vector, each feature named once; the
            robot's own action vector has their order.
        state: Groups of the dataset's ``state_key`` vector, each feature named once; the robot's
            own state vector has their order.
        cameras: The dataset's image keys, in the order in which a policy sees them.
        ignored: Features of the dataset that are excluded on purpose (all others must be mapped).
        action_key: The dataset's key of the action vector.
        state_key: The dataset's key of the state vector.

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
        if not 0 < self.control_hz < math.inf:
            raise EmbodimentError(
                f"embodiment {self.name!r}: control_hz is {self.control_hz}, expected a number "
                "above 0"
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
        """Feature names of the robot's action vector (n_a,), group by group."""
        return [f for group in self.action for f in group.features]

    @property
    def state_features(self) -> list[str]:
        """Feature names of the robot's state vector (n_s,), group by group."""
        return [f for group in self.state for f in group.features]

    def action_slots(self, group: ActionGroup) -> slice:
        """Find the unified entries of an action group."""
        start = ACTION_SLOTS[group.slot][0] + group.offset
        return slice(start, start + group.slot_width)

    def state_slots(self, group: StateGroup) -> slice:
        """Find the unified entries of a state group."""
        start = STATE_SLOTS[group.slot][0] + group.offset
        return slice(start, start + group.slot_width)

    def action_mask(self) -> BoolArray:
        """Mask (37,): True where this robot has an action."""
        return self._mask(ACTION_WIDTH, [self.action_slots(g) for g in self.action])

    def state_mask(self) -> BoolArray:
        """Mask (74,): True where this robot has a state."""
        return self._mask(STATE_WIDTH, [self.state_slots(g) for g in self.state])

    def delta_mask(self) -> BoolArray:
        """Mask (37,): True where actions are changes per step."""
        changes = [g for g, r in self._with_representation() if r.is_change]
        return self._mask(ACTION_WIDTH, [self.action_slots(g) for g in changes])

    # ---- representations ------------------------------------------------------------------

    @property
    def action_representations(self) -> list[ActionRepresentation]:
        """Representation of each action group, which knows the state that it is relative to."""
        states = dict(zip((g.name for g in self.state), self.state_representations, strict=True))
        return [
            ACTION_REPRESENTATIONS[g.representation](
                len(g.features), g.unit, g.encoding, states.get(g.relative_to)
            )
            for g in self.action
        ]

    @property
    def state_representations(self) -> list[StateRepresentation]:
        """Representation of each state group."""
        return [
            STATE_REPRESENTATIONS[g.representation](len(g.features), g.unit, g.encoding)
            for g in self.state
        ]

    def relative_forms(self) -> list[tuple[RelativeForm, slice]]:
        """List the form in which each action group is learnt, with its unified entries."""
        return [(r.relative_form, self.action_slots(g)) for g, r in self._with_representation()]

    def noise_forms(self) -> list[tuple[RelativeForm, slice]]:
        """List the form in which noise is drawn for each action group, with its entries."""
        return [(r.noise_form, self.action_slots(g)) for g, r in self._with_representation()]

    def _with_representation(self) -> list[tuple[ActionGroup, ActionRepresentation]]:
        return list(zip(self.action, self.action_representations, strict=True))

    # ---- robot vectors <-> unified vectors ------------------------------------------------

    def action_to_unified(self, action: FloatArray) -> FloatArray:
        """Map the robot's action vector (..., n_a) to the unified space (..., 37)."""
        unified = np.zeros((*action.shape[:-1], ACTION_WIDTH), dtype=np.float32)
        for target, source in self.action_copies(action, unified):
            target[...] = source
        return unified

    def action_copies(self, action: FloatArray, unified: FloatArray) -> list[SlotCopy]:
        """List the copies that write (..., n_a) into the robot's slots of (..., 37)."""
        self._check_width("action", action.shape[-1], len(self.action_features))
        if any(ACTION_REPRESENTATIONS[g.representation].encodes for g in self.action):
            action = _encode(action, self.action, self.action_representations)
        return _copies(action, unified, [self.action_slots(group) for group in self.action])

    def action_from_unified(self, unified: FloatArray) -> FloatArray:
        """Map unified actions (..., 37) back to the robot's action vector (..., n_a)."""
        parts = [
            r.decode(unified[..., self.action_slots(g)]) for g, r in self._with_representation()
        ]
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def state_to_unified(self, state: FloatArray) -> FloatArray:
        """Map the robot's state vector (..., n_s) to the unified space (..., 74)."""
        unified = np.zeros((*state.shape[:-1], STATE_WIDTH), dtype=np.float32)
        for target, source in self.state_copies(state, unified):
            target[...] = source
        return unified

    def state_copies(self, state: FloatArray, unified: FloatArray) -> list[SlotCopy]:
        """List the copies that write (..., n_s) into the robot's slots of (..., 74)."""
        self._check_width("state", state.shape[-1], len(self.state_features))
        if any(STATE_REPRESENTATIONS[g.representation].encodes for g in self.state):
            state = _encode(state, self.state, self.state_representations)
        return _copies(state, unified, [self.state_slots(group) for group in self.state])

    def reference(self, state: FloatArray) -> FloatArray:
        """Compute the reference (..., 37) of a chunk's actions from its first state (..., n_s).

        It is zero for groups without ``relative_to``.
        """
        reference = np.zeros((*state.shape[:-1], ACTION_WIDTH), dtype=np.float32)
        if not any(group.relative_to for group in self.action):
            return reference
        values_of = {group.name: values for group, values in split_groups(state, self.state)}
        for index, group in enumerate(self.action):
            if not group.relative_to:
                continue
            values = values_of[group.relative_to]
            if ACTION_REPRESENTATIONS[group.representation].encodes:
                values = self.action_representations[index].encode_reference(values)
            reference[..., self.action_slots(group)] = values
        return reference

    # ---- plain data -----------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data for checkpoints and recipes, without the fields that a subclass adds."""
        names = {f.name for f in fields(Embodiment)}
        return {key: value for key, value in asdict(self).items() if key in names}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build an embodiment from the plain data of ``to_dict``.

        Raises:
            EmbodimentError: an unknown key, or a value that the constructor refuses.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise EmbodimentError(f"embodiment {data.get('name')!r} has unknown keys {unknown}")
        values = dict(data)
        values["action"] = [group_from_dict(ActionGroup, g) for g in data.get("action", [])]
        values["state"] = [group_from_dict(StateGroup, g) for g in data.get("state", [])]
        return cls(**values)

    def differences(self, other: "Embodiment") -> list[str]:
        """List what keeps a checkpoint of ``other`` from fitting this robot of a recipe."""
        pairs: list[tuple[str, object, object]] = [
            ("control_hz", other.control_hz, self.control_hz)
        ]
        for key in ("action", "state"):
            recorded, mine = (list(getattr(robot, key)) for robot in (other, self))
            before, now = ([group.name for group in groups] for groups in (recorded, mine))
            pairs.append((f"the list of {key} groups", before, now))
            if before == now:
                pairs += [
                    (f"{key} {one.name}.{name}", value, vars(two)[name])
                    for one, two in zip(recorded, mine, strict=True)
                    for name, value in vars(one).items()
                ]
        return [
            f"{what} is {saved!r} in the checkpoint and {wanted!r} in the recipe"
            for what, saved, wanted in pairs
            if saved != wanted
        ]

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
            entries = _slot_entries(where, group, slots)
            for feature in group.features:
                if feature in seen:
                    raise EmbodimentError(f"{where}: feature {feature!r} is mapped twice")
                seen.add(feature)
            for entry in entries:
                if entry in taken:
                    raise EmbodimentError(
                        f"{where} group {group.name!r} overlaps group {taken[entry]!r} in slot "
                        f"{group.slot!r} (unified entry {entry})"
                    )
                taken[entry] = group.name

    def _check_representations(self) -> None:
        _check_known(f"embodiment {self.name!r}, action", self.action, ACTION_REPRESENTATIONS)
        _check_known(f"embodiment {self.name!r}, state", self.state, STATE_REPRESENTATIONS)
        for action, representation in self._with_representation():
            representation.check(f"embodiment {self.name!r}, action group {action.name!r}")
        for state, measured in zip(self.state, self.state_representations, strict=True):
            measured.check(f"embodiment {self.name!r}, state group {state.name!r}")
        for action, representation in self._with_representation():
            self._check_reference(action, representation)

    def _check_reference(self, group: ActionGroup, representation: ActionRepresentation) -> None:
        where = f"embodiment {self.name!r}, action group {group.name!r}"
        if group.relative_to and not representation.may_be_relative:
            raise EmbodimentError(
                f"{where}: relative_to is for positions and rotations, found "
                f"{group.representation!r}"
            )
        if group.relative_to and representation.reference is None:
            raise EmbodimentError(
                f"{where}: relative_to names state group {group.relative_to!r}; "
                f"expected one of {sorted(g.name for g in self.state)}"
            )
        representation.check_reference(where, group.relative_to)


def _slot_entries(
    where: str, group: ActionGroup | StateGroup, slots: dict[str, tuple[int, int]]
) -> range:
    """Return the unified entries of a group; refuse one that does not fit into its slot."""
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
    return range(start + group.offset, start + group.offset + width)


def _check_known(
    where: str, groups: Sequence[ActionGroup | StateGroup], known: Mapping[str, object]
) -> None:
    for group in groups:
        if group.representation not in known:
            raise EmbodimentError(
                f"{where} group {group.name!r}: representation {group.representation!r} is "
                f"unknown; expected one of {list(known)}"
            )


def _encode[G: (ActionGroup, StateGroup)](
    vector: FloatArray, groups: Sequence[G], representations: Sequence[Representation]
) -> FloatArray:
    """Concatenate the unified entries of all groups."""
    pairs = zip(representations, split_groups(vector, groups), strict=True)
    return np.concatenate([r.encode(values) for r, (_, values) in pairs], axis=-1)


def _copies(values: FloatArray, unified: FloatArray, slots: list[slice]) -> list[SlotCopy]:
    """List the copies of the columns of ``values``, in turn, into ``slots`` of ``unified``."""
    joined: list[tuple[slice, slice]] = []
    column = 0
    for into in slots:
        start, stop = column, column + into.stop - into.start
        if joined and joined[-1][0].stop == into.start:  # one copy for neighbouring slots
            into, start = slice(joined[-1][0].start, into.stop), joined.pop()[1].start
        joined.append((into, slice(start, stop)))
        column = stop
    copies = []
    for into, columns in joined:
        target: npt.NDArray[Any] = unified[..., into]
        source: npt.NDArray[Any] = values[..., columns]
        if source.dtype == np.float32 and source.strides[-1] == source.itemsize:
            # A row as one item: several times faster than NumPy's copy of many short rows.
            item = np.dtype((np.void, source.itemsize * source.shape[-1]))
            target, source = target.view(item)[..., 0], source.view(item)[..., 0]
        copies.append(SlotCopy(target, source))
    return copies
