"""Dataset under examination, in the form that the checks use.

Axes: N frames, D features of a vector, E episodes.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from actionprior.checkup.finding import Finding, Level
from actionprior.data import Contents
from actionprior.data.store import TrajectoryStore
from actionprior.embodiment import ActionGroup, Embodiment, FloatArray, StateGroup
from actionprior.embodiment.feature_groups import split_groups
from actionprior.embodiment.representations.base import ActionRepresentation, Representation


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
    """

    def __init__(
        self, robot: Embodiment, dataset: str, contents: Contents, chunk_length: int
    ) -> None:
        self.robot, self.dataset, self.contents = robot, dataset, contents
        self.chunk_length = chunk_length
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
        """Pairs of each target group and its state: ``relative_to``, or the same features."""
        states = split_groups(self.state_ND, self.robot.state)
        groups = split_groups(self.action_ND, self.robot.action)
        known = self.robot.action_representations
        return [
            ActionWithState(action, representation, action_ND, state, state_ND)
            for representation, (action, action_ND) in zip(known, groups, strict=True)
            if representation.aims_at_state
            for state, state_ND in states
            if state.name == action.relative_to
            or (not action.relative_to and state.features == action.features)
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
    ) -> Finding:
        """Create a finding about the dataset, an episode, or one frame.

        Args:
            level: Level of the finding.
            check: Name of the check.
            feature: Name of the feature, group or camera; empty for all.
            message: What was found and what to do.
            at: Row of the frame in the dataset; -1 if the finding is not about one frame.
            episode: Number of the episode; -1 for all. Ignored if ``at`` names a frame.
        """
        row = -1
        if at >= 0:
            episode = int(np.searchsorted(self.stop_E, at, side="right"))
            row = at - int(self.start_E[episode])
        return Finding(level, check, self.robot.name, self.dataset, feature, episode, row, message)
