"""Bring trajectories to another rate, each representation in its own way.

Axes: N frames of one episode, M frames after resampling, D features, A action features,
S state features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.data.pseudo_random import IntArray
from actionprior.embodiment import ActionGroup, Embodiment, FloatArray, StateGroup
from actionprior.embodiment.feature_groups import split_groups
from actionprior.embodiment.representations.base import Representation
from actionprior.embodiment.representations.sample_times import EXACT, SampleTimes

Seconds = npt.NDArray[np.float64]


class Resampled(NamedTuple):
    """One episode at the robot's control rate.

    Attributes:
        action_MA: float32 (M, n_a).
        state_MS: float32 (M, n_s).
        frame_M: int64 (M,), last recorded frame at or before each new one.
        time_M: float64 (M,), time since the first frame [s].
    """

    action_MA: FloatArray
    state_MS: FloatArray
    frame_M: IntArray
    time_M: Seconds


def resample(
    robot: Embodiment, action_NA: FloatArray, state_NS: FloatArray, time_N: Seconds
) -> Resampled:
    """Bring an episode that was recorded at ``time_N`` [s] to ``robot.control_hz``.

    Positions are linear between frames, angles turn the shorter way round, orientations follow
    the great circle, deltas keep their sums, and grippers hold their value until the next frame.
    Where old and new times agree, values stay exact. The new episode ends at the last frame of
    the old one. With deltas it ends earlier, at the last whole delta. It has at least one frame.

    Args:
        robot: Robot with the control rate to reach.
        action_NA: float32 (N, n_a), actions as recorded.
        state_NS: float32 (N, n_s), states as recorded.
        time_N: float64 (N,), times of the frames [s].

    Raises:
        ValueError: times that do not increase.
    """
    step_N = np.diff(time_N)
    if len(step_N) and not step_N.min() > 0:
        raise ValueError(f"time does not increase after frame {int(step_N.argmin())}")
    elapsed_N = time_N - time_N[0]
    last = float(np.median(step_N)) if len(step_N) else 1 / robot.control_hz
    ends = np.append(elapsed_N, elapsed_N[-1] + last)
    count = int(elapsed_N[-1] * robot.control_hz + EXACT) + 1
    if robot.delta_mask().any():
        count = max(1, min(count, int(ends[-1] * robot.control_hz + EXACT)))
    edge_M = np.arange(count + 1) / robot.control_hz
    times = SampleTimes(ends, edge_M, last)
    return Resampled(
        _resampled(action_NA, robot.action, robot.action_representations, times),
        _resampled(state_NS, robot.state, robot.state_representations, times),
        times.before_M,
        edge_M[:-1],
    )


def _resampled[G: (ActionGroup, StateGroup)](
    vector_ND: FloatArray,
    groups: Sequence[G],
    representations: Sequence[Representation],
    times: SampleTimes,
) -> FloatArray:
    parts = [
        representation.resample(values_ND.astype(np.float64), times)
        for representation, (_, values_ND) in zip(
            representations, split_groups(vector_ND, groups), strict=True
        )
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)
