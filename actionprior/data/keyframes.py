"""Keyframes: the moments at which a gripper switches, and the end of each episode.

What a demonstrator is on the way to shows at the next keyframe: the hand is where it grasps,
releases or ends. Source of the rule: arXiv 2105.14829, Sec. IV-A (keyframe discovery), without
its stops.

Axes: N frames, B batch, K keyframes, S = 74 state slots.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actionprior.data.column_store import Column
from actionprior.data.frame_ranges import BoolArray, IntArray
from actionprior.data.store import TrajectoryStore
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.normalization import CONSTANT

SURE = 0.25  # distance from the middle, as a share of the range, from which a command is clear


class GripperEntry(NamedTuple):
    """One gripper command of a robot.

    Attributes:
        feature: Name of the command.
        slot: Its unified entry.
        low: Value of one end, a quantile of the recorded values.
        high: Value of the other end.
        column: Its number among the robot's action features.
    """

    feature: str
    slot: int
    low: float
    high: float
    column: int

    @property
    def middle(self) -> float:
        """Value between open and closed."""
        return (self.low + self.high) / 2


def gripper_entries(robot: Embodiment, action_Na: FloatArray | Column) -> list[GripperEntry]:
    """List the gripper commands of a robot that take more than one value."""
    entries, column = [], 0
    for group, kind in zip(robot.action, robot.action_representations, strict=True):
        for number, feature in enumerate(group.features):
            if kind.is_gripper:
                values_N = read_column(action_Na, column)
                low, high = np.quantile(values_N, [0.01, 0.99]).tolist()
                if high - low > CONSTANT:
                    slot = robot.action_slots(group).start + number
                    entries.append(GripperEntry(feature, slot, low, high, column))
            column += 1
    return entries


def read_column(action_Na: FloatArray | Column, column: int) -> FloatArray:
    """Read one entry of all frames, float32 (N,)."""
    if isinstance(action_Na, Column):
        return np.asarray(action_Na.pick(np.array([column]))[:])[:, 0]
    return action_Na[:, column]


class Keyframes:
    """Looks up the next keyframe of frames.

    Args:
        store: Frames of the run. All gripper commands are read once.

    Attributes:
        frame_K: int64 (K,), the keyframes in ascending order.
    """

    def __init__(self, store: TrajectoryStore) -> None:
        self._store = store
        found = [np.asarray(store.stop_E - 1, np.int64)]
        for robot, recording, stop in zip(
            store.robot_R, store.recordings, store.stop_R, strict=True
        ):
            start = int(stop) - len(recording.action_Na)
            edges = np.zeros(len(recording.action_Na), np.bool_)
            edges[np.cumsum(recording.lengths_E)[:-1]] = True
            for entry in gripper_entries(store.embodiments[robot], recording.action_Na):
                value_N = read_column(recording.action_Na, entry.column)
                switches = _switches(value_N, entry, edges)
                found.append(start + np.flatnonzero(switches))
        self.frame_K: IntArray = np.unique(np.concatenate(found))

    def after(self, frames_B: Tensor) -> Tensor:
        """Return the first keyframe after each frame, or the episode's last frame, int64 (B,)."""
        now_B = frames_B.numpy()
        last_B = self._store.stop_E[np.searchsorted(self._store.stop_E, now_B, side="right")] - 1
        position_B = np.searchsorted(self.frame_K, np.minimum(now_B + 1, last_B), side="left")
        return torch.from_numpy(self.frame_K[position_B])

    def states(self, frames_B: Tensor) -> Tensor:
        """Gather the states at the next keyframes of frames, (B, S)."""
        return self._store.states(self.after(frames_B))


def _switches(value_N: FloatArray, entry: GripperEntry, starts_N: BoolArray) -> BoolArray:
    """Find the frames at which a command crosses from one end's range to the other's."""
    margin = SURE * (entry.high - entry.low)
    side_N = np.where(value_N > entry.middle + margin, 1, 0)
    side_N = np.where(value_N < entry.middle - margin, -1, side_N)
    # A value in the middle belongs to the last clear one of its episode.
    clear_N = (side_N != 0) | starts_N
    last_N = np.maximum.accumulate(np.where(clear_N, np.arange(len(side_N)), 0))
    side_N = side_N[last_N]
    # The first clear command of an episode is no switch.
    before_N = np.concatenate([side_N[:1], side_N[:-1]])
    switched_N: BoolArray = (side_N != before_N) & (before_N != 0) & ~starts_N
    return switched_N
