"""The dataset under examination, and what every check asks of it.

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

ARMS = ("joint_position", "end_effector_position", "gripper")


class Part(NamedTuple):
    """The values of one group of features."""

    kind: str  # action or state
    group: ActionGroup | StateGroup
    values_ND: FloatArray


class Pair(NamedTuple):
    """An action group, and the state group of the same joints."""

    action: ActionGroup
    action_ND: FloatArray
    state: StateGroup
    state_ND: FloatArray


class Subject:
    """One dataset under examination.

    Args:
        robot: whose it is.
        dataset: its name in the findings.
        contents: what was read.
        chunk_length: steps H of a chunk, by which episodes are judged.
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
    def actions(self) -> list[Part]:
        """The action groups."""
        return [Part("action", *p) for p in split_groups(self.action_ND, self.robot.action)]

    @cached_property
    def states(self) -> list[Part]:
        """The state groups."""
        return [Part("state", *p) for p in split_groups(self.state_ND, self.robot.state)]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Absolute actions with their state: ``relative_to``, or the group of the same features."""
        found = []
        for group, action_ND in split_groups(self.action_ND, self.robot.action):
            if group.representation not in ARMS:
                continue
            for state, state_ND in split_groups(self.state_ND, self.robot.state):
                same = not group.relative_to and state.features == group.features
                if state.name == group.relative_to or same:
                    found.append(Pair(group, action_ND, state, state_ND))
        return found

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
        """A finding of an episode, or of frame ``at`` (counted in the dataset), where given."""
        row = -1
        if at >= 0:
            episode = int(np.searchsorted(self.stop_E, at, side="right"))
            row = at - int(self.start_E[episode])
        return Finding(level, check, self.robot.name, self.dataset, feature, episode, row, message)
