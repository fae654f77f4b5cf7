"""Values between the samples of a recording, for bringing it to another rate.

Axes: N frames of one episode, M frames after resampling, D features.
"""

import numpy as np
import numpy.typing as npt

from actionprior.embodiment.arrays import DoubleArray

EXACT = 1e-6
"""Times that differ by less than this share of a frame are the same."""


class SampleTimes:
    """Position of an episode's new frame times between its old ones.

    Args:
        end: (N + 1,) start times of the old frames and end time of the last one [s].
        edge: (M + 1,) start times of the new frames and end time of the last one [s].
        frame: Typical duration of an old frame [s], the scale on which times are compared.

    Attributes:
        before_M: int64 (M,), last old frame at or before each new time.
        after_M: int64 (M,), first old frame after it; the last one past the end.
        share_M: float64 (M,), share of the way between these two, exactly 0 where times agree.
    """

    def __init__(self, end: DoubleArray, edge: DoubleArray, frame: float) -> None:
        self.end, self.edge = end, edge
        frames = len(end) - 1
        found = np.searchsorted(end[:-1], edge + EXACT * frame, side="right") - 1
        self.before_M: npt.NDArray[np.int64] = found[:-1]
        after_M = np.minimum(self.before_M + 1, frames - 1)
        gap_M = np.maximum(end[after_M] - end[self.before_M], EXACT * frame)
        share_M = np.clip((edge[:-1] - end[self.before_M]) / gap_M, 0, 1)
        self.after_M: npt.NDArray[np.int64] = after_M
        self.share_M: DoubleArray = np.where(share_M < EXACT, 0.0, share_M)


def hold(values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
    """Keep each value until the next frame."""
    return values_ND[times.before_M]


def on_a_line(values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
    """Move straight from each frame's value to the next."""
    first_MD = values_ND[times.before_M]
    way_MD: DoubleArray = values_ND[times.after_M] - first_MD
    moved_MD: DoubleArray = first_MD + times.share_M[:, None] * way_MD
    return moved_MD


def shorter_way(values_ND: DoubleArray, times: SampleTimes, period: float) -> DoubleArray:
    """Turn the shorter way round; values between frames that wrap lie within ± half a turn."""
    first_MD = values_ND[times.before_M]
    way_MD: DoubleArray = values_ND[times.after_M] - first_MD
    wraps_MD = np.abs(way_MD) > period / 2
    way_MD = np.where(wraps_MD, wrap(way_MD, period), way_MD)
    moved_MD: DoubleArray = first_MD + times.share_M[:, None] * way_MD
    return np.where(wraps_MD & (times.share_M[:, None] > 0), wrap(moved_MD, period), moved_MD)


def keep_sums(values_ND: DoubleArray, times: SampleTimes) -> DoubleArray:
    """Spread each change evenly over its frame, so that sums agree at every common time."""
    sums = np.concatenate([np.zeros_like(values_ND[:1]), values_ND.cumsum(axis=0)])
    at_edge = np.stack([np.interp(times.edge, times.end, column) for column in sums.T], axis=1)
    return np.diff(at_edge, axis=0)


def wrap(angle: DoubleArray, period: float) -> DoubleArray:
    """Bring angles within [-``period`` / 2, ``period`` / 2)."""
    wrapped: DoubleArray = (angle + period / 2) % period - period / 2
    return wrapped
