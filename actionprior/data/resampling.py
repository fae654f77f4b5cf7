"""Bring trajectories to another rate, each representation in its own way.

Axes: N frames of one episode, M frames after resampling, D features, A action features,
S state features.
"""

import itertools
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

MAX_GAP = 2.0
"""Longest time between two frames [s] that is bridged by default."""
SHORT_GAP = 10.0
"""Gaps of up to this many usual steps are always bridged, as in recordings of a low rate."""
MOST_GROWTH = 1000
"""Most new frames per recorded frame, which limits memory for any times and rates."""


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


def unbroken_parts(time_N: Seconds, max_gap: float = MAX_GAP) -> list[slice]:
    """Split an episode where no frame was recorded for long, since motion there is not known.

    Args:
        time_N: float64 (N,), times of the frames [s].
        max_gap: Longest time between two frames [s] that does not split. ``SHORT_GAP`` usual steps
            never do.

    Returns:
        Frames of each part, in order.

    Raises:
        ValueError: Times do not increase.
    """
    step_N = _steps(time_N)
    with np.errstate(all="ignore"):
        usual = float(np.median(step_N)) if len(step_N) else 0.0
    cuts = (np.nonzero(step_N > max(max_gap, SHORT_GAP * usual))[0] + 1).tolist()
    return [slice(*ends) for ends in itertools.pairwise([0, *cuts, len(time_N)])]


def resample(
    robot: Embodiment,
    action_NA: FloatArray,
    state_NS: FloatArray,
    time_N: Seconds,
    max_gap: float = MAX_GAP,
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
        max_gap: Longest time between two frames [s]. Motion in a longer gap is not known.

    Raises:
        ValueError: Times do not increase, there is a longer gap, or the control rate is too high
            for the recording.
    """
    step_N = _steps(time_N)
    with np.errstate(all="ignore"):
        elapsed_N = time_N - time_N[0]
    last = float(np.median(step_N)) if len(step_N) else 1 / robot.control_hz
    _check_times(robot, step_N, float(elapsed_N[-1]), last, max_gap)
    ends = np.append(elapsed_N, elapsed_N[-1] + last)
    count = int(elapsed_N[-1] * robot.control_hz + EXACT) + 1
    if robot.delta_mask().any():
        count = max(1, int(min(count, ends[-1] * robot.control_hz + EXACT)))
    edge_M = np.arange(count + 1) / robot.control_hz
    times = SampleTimes(ends, edge_M, last)
    return Resampled(
        _resampled(action_NA, robot.action, robot.action_representations, times),
        _resampled(state_NS, robot.state, robot.state_representations, times),
        times.before_M,
        edge_M[:-1],
    )


def _check_times(
    robot: Embodiment, step_N: Seconds, duration: float, usual: float, max_gap: float
) -> None:
    """Refuse times from which no trajectory of bounded length can be made."""
    longest = float(step_N.max(initial=0.0))
    if longest > max(max_gap, SHORT_GAP * usual):
        raise ValueError(
            f"there is a gap of {longest:.3g} s after frame {int(step_N.argmax())}, and max_gap is "
            f"{max_gap:g} s; raise max_gap to bridge it"
        )
    frames = len(step_N) + 1
    if not duration * robot.control_hz <= MOST_GROWTH * frames:
        raise ValueError(
            f"{frames} frames in {duration:.3g} s would become more than {MOST_GROWTH} times as "
            f"many at control_hz {robot.control_hz:g}; check the timestamps and control_hz"
        )


def _steps(time_N: Seconds) -> Seconds:
    """Return the times between frames.

    Raises:
        ValueError: Times do not increase.
    """
    with np.errstate(all="ignore"):
        step_N: Seconds = np.diff(time_N)
    if len(step_N) and not step_N.min() > 0:
        raise ValueError(f"time does not increase after frame {int(step_N.argmin())}")
    return step_N


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
