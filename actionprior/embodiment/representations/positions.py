"""Positions: joint targets, tool positions, and positions as states."""

from dataclasses import dataclass
from typing import ClassVar, override

from actionprior.embodiment.representations.base import ActionRepresentation, StateRepresentation
from actionprior.embodiment.representations.relative_forms import (
    DIFFERENCE,
    RelativeForm,
    ShorterWay,
)


@dataclass(frozen=True)
class PositionTarget(ActionRepresentation):
    """Target that is learnt as the difference from the state, the shorter way round for angles."""

    may_be_relative: ClassVar[bool] = True
    aims_at_state: ClassVar[bool] = True

    @property
    @override
    def period(self) -> float | None:
        return None if self.reference is None else self.reference.period

    @property
    @override
    def relative_form(self) -> RelativeForm:
        return DIFFERENCE if self.period is None else ShorterWay(self.period)


@dataclass(frozen=True)
class JointTarget(PositionTarget):
    """Joint targets, in any unit."""

    name: ClassVar[str] = "joint_position"


@dataclass(frozen=True)
class EndEffectorTarget(PositionTarget):
    """Targets of a tool's position."""

    name: ClassVar[str] = "end_effector_position"


@dataclass(frozen=True)
class StatePosition(StateRepresentation):
    """Measured positions, in any unit."""

    name: ClassVar[str] = "position"
