"""Dataset under examination, in the form that the checks use.

Axes: N frames, D features of a vector, E episodes.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.checkup.finding import Finding, Level
from actionprior.data import Contents
from actionprior.data.store import Recording, TrajectoryStore
from actionprior.embodiment import ActionGroup, BoolArray, Embodiment, FloatArray, StateGroup
from actionprior.embodiment.feature_groups import split_groups
from actionprior.embodiment.normalization import CONSTANT
from actionprior.embodiment.representations.base import ActionRepresentation, Representation


def moves(values_ND: FloatArray) -> BoolArray:
    """Find the features (D,) that change by more than the rounding of float32."""
    changes: BoolArray = np.ptp(values_ND, axis=0) > CONSTANT * np.abs(values_ND).max(axis=0)
    return changes


class GroupValues(NamedTuple):
    """Values of one group of features.

    Attributes:
        kind: ``action`` or ``state``.
        group: Description of the group.
        representation: Meaning of the group's values.
        values_ND: Values as recorded, float32 (N, D).
    """

    kind: str
    group: ActionGroup | StateGroup
    representation: Representation
    values_ND: FloatArray

    @property
    def is_change(self) -> bool:
        """True if a value is a change per step, not a place."""
        return isinstance(self.representation, ActionRepresentation) and (
            self.representation.is_change
        )


class ActionWithState(NamedTuple):
    """Action group and the state group of the same joints.

    Attributes:
        action: Description of the action group.
        representation: Meaning of the actions.
        action_ND: Actions as recorded, float32 (N, D).
        state: Description of the state group.
        state_ND: States as recorded, float32 (N, D).
    """

    action: ActionGroup
    representation: ActionRepresentation
    action_ND: FloatArray
    state: StateGroup
    state_ND: FloatArray


class Subject:
    """One dataset under examination.

    Args:
        robot: Robot that the dataset was recorded on.
        dataset: Name of the dataset in the findings.
        contents: Recordings, timestamps and instructions of the dataset.
        chunk_length: Steps H of a chunk at the recorded rate.
        recipe_chunk: Steps H of a chunk as the recipe sets them; 0: ``chunk_length``.

    Attributes:
        number_E: Numbers of the episodes in the dataset, of which some may be excluded.
    """

    def __init__(
        self,
        robot: Embodiment,
        dataset: str,
        contents: Contents,
        chunk_length: int,
        recipe_chunk: int = 0,
    ) -> None:
        self.robot, self.dataset, self.chunk_length = robot, dataset, chunk_length
        self.recipe_chunk = recipe_chunk or chunk_length
        count = len(contents.recording.lengths_E)
        self.number_E = np.setdiff1d(np.arange(count), contents.excluded)
        if contents.excluded:
            contents = _without(contents, self.number_E)
        self.contents = contents
        recording = contents.recording
        self.lengths_E = recording.lengths_E
        self.stop_E = np.cumsum(self.lengths_E)
        self.start_E = self.stop_E - self.lengths_E
        self.action_ND: FloatArray = recording.action_Na[:]
        self.state_ND: FloatArray = recording.state_Ns[:]
        self.store = TrajectoryStore([robot], [(0, recording)])

    @cached_property
    def actions(self) -> list[GroupValues]:
        """Values of the action groups."""
        groups = split_groups(self.action_ND, self.robot.action)
        known = self.robot.action_representations
        return [GroupValues("action", g, r, v) for r, (g, v) in zip(known, groups, strict=True)]

    @cached_property
    def states(self) -> list[GroupValues]:
        """Values of the state groups."""
        groups = split_groups(self.state_ND, self.robot.state)
        known = self.robot.state_representations
        return [GroupValues("state", g, r, v) for r, (g, v) in zip(known, groups, strict=True)]

    @cached_property
    def pairs(self) -> list[ActionWithState]:
        """Pairs of each target group and its state: ``relative_to``, or the same features.

        Their unit is the same, so that their values can be compared.
        """
        states = split_groups(self.state_ND, self.robot.state)
        groups = split_groups(self.action_ND, self.robot.action)
        known = self.robot.action_representations
        return [
            ActionWithState(action, representation, action_ND, state, state_ND)
            for representation, (action, action_ND) in zip(known, groups, strict=True)
            if representation.aims_at_state
            for state, state_ND in states
            if state.name == action.relative_to
            or (
                not action.relative_to
                and state.features == action.features
                and (state.unit == action.unit or not (state.unit and action.unit))
            )
        ]

    def say(
        self,
        level: Level,
        check: str,
        feature: str,
        message: str,
        *,
        at: int = -1,
        episode: int = -1,
        episodes: Sequence[int] = (),
        advice: str = "",
    ) -> Finding:
        """Create a finding about the dataset, an episode, or one frame.

        Args:
            level: Level of the finding.
            check: Name of the check.
            feature: Name of the feature, group or camera; empty for all.
            message: What was found.
            at: Row of the frame in the dataset; -1 if the finding is not about one frame.
            episode: Number of the episode; -1 for all. Ignored if ``at`` names a frame.
            episodes: All episodes that would have to be excluded because of this; empty if
                that would not help.
            advice: What to set (``advice.py``); empty if there is nothing to do.
        """
        row = -1
        if at >= 0:
            episode = int(np.searchsorted(self.stop_E, at, side="right"))
            row = at - int(self.start_E[episode])
        numbers = tuple(self.number_E[list(episodes)].tolist())
        others = f" ({len(numbers)} such episodes)" if len(numbers) > 1 else ""
        number = int(self.number_E[episode]) if episode >= 0 else -1
        where = self.robot.name, self.dataset, feature, number, row
        return Finding(level, check, *where, message + others, numbers, advice)


def _without(contents: Contents, kept: npt.NDArray[np.int64]) -> Contents:
    """Copy the contents with only some of the episodes."""
    recording = contents.recording
    stop_E = np.cumsum(recording.lengths_E)
    rows = np.concatenate(
        [np.arange(stop_E[e] - recording.lengths_E[e], stop_E[e]) for e in kept.tolist()]
    )
    return replace(
        contents,
        recording=Recording(
            recording.action_Na[:][rows],
            recording.state_Ns[:][rows],
            recording.lengths_E[kept],
            recording.name,
        ),
        timestamp_N=None if contents.timestamp_N is None else contents.timestamp_N[:][rows],
        task_N=None if contents.task_N is None else contents.task_N[:][rows],
    )
