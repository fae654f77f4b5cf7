"""Trajectories at another rate: each representation between its samples as it should be.

Axes: N frames of one episode, M frames after resampling, D features, A, S as in a robot's vectors.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.data.pseudo_random import IntArray
from actionprior.embodiment import (
    DELTAS,
    ROTATIONS,
    ActionGroup,
    Embodiment,
    FloatArray,
    StateGroup,
    rotations,
)
from actionprior.embodiment.feature_groups import split_groups

Doubles = npt.NDArray[np.float64]
Seconds = Doubles
_EXACT = 1e-6  # of a frame: times that differ by less are the same


class Resampled(NamedTuple):
    """One episode at the robot's control rate.

    Attributes:
        action_MA: float32 (M, n_a).
        state_MS: float32 (M, n_s).
        frame_M: the source's last frame at or before each new one: what had been seen by then.
        time_M: seconds since the first frame.
    """

    action_MA: FloatArray
    state_MS: FloatArray
    frame_M: IntArray
    time_M: Seconds


def resample(
    robot: Embodiment, action_NA: FloatArray, state_NS: FloatArray, time_N: Seconds
) -> Resampled:
    """An episode, recorded at ``time_N`` [s], at ``robot.control_hz``.

    Positions are linear between frames, angles (``angle_sincos`` and actions relative to one) by
    the shorter way round, orientations along the great circle; deltas keep their sums; grippers
    and instructions hold their value until the next frame. Where old and new times agree,
    values are kept exactly. The new episode ends at the old one's last frame or, of a robot with
    deltas, as far before it as a whole new delta is known; it has at least one frame.

    Raises:
        ValueError: times that do not increase.
    """
    step_N = np.diff(time_N)
    if len(step_N) and not step_N.min() > 0:
        raise ValueError(f"time does not increase after frame {int(step_N.argmin())}")
    elapsed_N = time_N - time_N[0]
    last = float(np.median(step_N)) if len(step_N) else 1 / robot.control_hz
    ends = np.append(elapsed_N, elapsed_N[-1] + last)
    count = int(elapsed_N[-1] * robot.control_hz + _EXACT) + 1
    if any(group.representation in DELTAS for group in robot.action):
        count = max(1, min(count, int(ends[-1] * robot.control_hz + _EXACT)))
    edge_M = np.arange(count + 1) / robot.control_hz
    at = _Times(ends, edge_M, last)
    around = {g.name for g in robot.state if g.representation == "angle_sincos"}
    action_MA = [
        _between(group, values, at, around=group.relative_to in around)
        for group, values in split_groups(action_NA, robot.action)
    ]
    state_MS = [
        _between(group, values, at, around=group.name in around)
        for group, values in split_groups(state_NS, robot.state)
    ]
    return Resampled(
        np.concatenate(action_MA, axis=1).astype(np.float32),
        np.concatenate(state_MS, axis=1).astype(np.float32),
        at.before_M,
        edge_M[:-1],
    )


class _Times:
    """Where the new times lie among the old ones.

    Args:
        end: (N + 1,) times of the frames, and of the last one's end.
        edge: (M + 1,) likewise of the new frames.
        frame: seconds of a frame, against which times are compared.
    """

    def __init__(self, end: Seconds, edge: Seconds, frame: float) -> None:
        self.end, self.edge = end, edge
        frames = len(end) - 1
        found = np.searchsorted(end[:-1], edge + _EXACT * frame, side="right") - 1
        self.before_M: IntArray = found[:-1]
        after_M = np.minimum(self.before_M + 1, frames - 1)
        gap_M = np.maximum(end[after_M] - end[self.before_M], _EXACT * frame)
        share_M = np.clip((edge[:-1] - end[self.before_M]) / gap_M, 0, 1)
        self.after_M: IntArray = after_M
        self.share_M = np.where(share_M < _EXACT, 0.0, share_M)


def _between(
    group: ActionGroup | StateGroup, given_ND: FloatArray, at: _Times, *, around: bool
) -> Doubles:
    values_ND: Doubles = given_ND.astype(np.float64)
    first_MD = values_ND[at.before_M]
    if group.representation == "gripper":
        return first_MD
    if group.representation in DELTAS:
        return _keep_sums(values_ND, at)
    if group.representation in ROTATIONS:
        turns = rotations.to_quaternion(torch.from_numpy(values_ND), group.encoding)
        share_M = torch.from_numpy(at.share_M)
        turned = rotations.between(turns[at.before_M], turns[at.after_M], share_M)
        new_MD = rotations.from_quaternion(turned, group.encoding).numpy()
        return np.where(at.share_M[:, None] == 0, first_MD, new_MD)
    way_MD: Doubles = values_ND[at.after_M] - first_MD
    wraps_MD = (np.abs(way_MD) > np.pi) & around
    way_MD = np.where(wraps_MD, _wrap(way_MD), way_MD)
    moved_MD: Doubles = first_MD + at.share_M[:, None] * way_MD
    return np.where(wraps_MD & (at.share_M[:, None] > 0), _wrap(moved_MD), moved_MD)


def _wrap(angle: Doubles) -> Doubles:
    wrapped: Doubles = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped


def _keep_sums(values_ND: Doubles, at: _Times) -> Doubles:
    """What a delta does is spread evenly over its frame."""
    sums = np.concatenate([np.zeros_like(values_ND[:1]), values_ND.cumsum(axis=0)])
    at_edge = np.stack([np.interp(at.edge, at.end, column) for column in sums.T], axis=1)
    return np.diff(at_edge, axis=0)
