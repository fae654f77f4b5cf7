"""Sets of frames as sorted ranges [start, stop), without a list of the frames.

Axes: K ranges, I indices, N frames.
"""

from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

_STEPS = 4  # ranges to step over before a binary search is faster
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Stops:
    """Find the range that contains an index, for consecutive ranges from 0.

    The result is that of ``np.searchsorted(stop_K, index_I, side="right")``. A table with at most
    one entry per range says where to start the search. This is several times faster if the ranges
    do not fit into a processor's cache.

    Args:
        stop_K: int64 (K,), one past the last index of each range, ascending.
    """

    def __init__(self, stop_K: IntArray) -> None:
        self.stop_K = stop_K

    def find(self, index_I: IntArray) -> IntArray:
        """Return the range of each index, int64 (I,), for indices 0 … ``stop_K[-1]`` - 1."""
        shift, table = self._table
        if not len(table):
            return np.zeros_like(index_I)
        found_I = table.take(index_I >> shift).astype(np.int64)
        for _ in range(_STEPS):
            beyond_I = self.stop_K.take(found_I) <= index_I
            if not beyond_I.any():
                return found_I
            found_I = found_I + beyond_I
        # Short ranges beside long ones: the table's entry is many ranges off.
        return np.searchsorted(self.stop_K, index_I, side="right")

    @cached_property
    def _table(self) -> tuple[int, npt.NDArray[np.int32]]:
        if not len(self.stop_K):
            return 0, np.empty(0, dtype=np.int32)
        size = int(self.stop_K[-1])
        shift = (size // len(self.stop_K)).bit_length()
        first = np.arange(((size - 1) >> shift) + 1, dtype=np.int64) << shift
        return shift, np.searchsorted(self.stop_K, first, side="right").astype(np.int32)


class Spans:
    """Set of the frames in sorted, disjoint ranges [start, stop).

    Memory grows with the number of ranges (mostly episodes), not with the number of frames.

    Args:
        start_K: int64 (K,), first frame of each range.
        stop_K: int64 (K,), one past the last frame of each range.

    Raises:
        ValueError: ranges that are not sorted and disjoint.
    """

    def __init__(self, start_K: IntArray, stop_K: IntArray) -> None:
        if (start_K[1:] < stop_K[:-1]).any() or (start_K > stop_K).any():
            raise ValueError("ranges of frames must be sorted and must not overlap")
        some = start_K < stop_K
        self.start_K = start_K[some].astype(np.int64)
        self.stop_K = stop_K[some].astype(np.int64)
        self._ends = Stops(np.cumsum(self.stop_K - self.start_K, dtype=np.int64))
        self._shift_K = self.stop_K - self._ends.stop_K  # from position to frame

    @classmethod
    def where(cls, chosen_N: BoolArray) -> Self:
        """Build the set of frames at which ``chosen_N`` is True."""
        edges = np.diff(chosen_N.astype(np.int8), prepend=0, append=0)
        return cls(np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0])

    @classmethod
    def join(cls, parts: "list[Spans]") -> Self:
        """Join sets that follow each other."""
        empty = [np.empty(0, dtype=np.int64)]
        starts = np.concatenate(empty + [part.start_K for part in parts])
        return cls(starts, np.concatenate(empty + [part.stop_K for part in parts]))

    def __len__(self) -> int:
        ends_K = self._ends.stop_K
        return int(ends_K[-1]) if len(ends_K) else 0

    def clip(self, first: int, stop: int) -> "Spans":
        """Restrict the set to the frames in [first, stop)."""
        return Spans(self.start_K.clip(first, stop), self.stop_K.clip(first, stop))

    def keep(self, chosen_N: BoolArray) -> "Spans":
        """Restrict the set to the frames with True in ``chosen_N`` (one entry per frame)."""
        frames_N = self.frames()[chosen_N]
        gaps = np.nonzero(np.diff(frames_N) > 1)[0]
        starts = np.concatenate([frames_N[:1], frames_N[gaps + 1]])
        return Spans(starts, np.concatenate([frames_N[gaps], frames_N[-1:]]) + 1)

    def frames(self, index_I: IntArray | None = None) -> IntArray:
        """List the frames at positions ``index_I`` of the set; all frames by default."""
        if index_I is None:
            index_I = np.arange(len(self), dtype=np.int64)
        range_I = self._ends.find(index_I)
        frames_I: IntArray = index_I + self._shift_K.take(range_I)
        return frames_I
