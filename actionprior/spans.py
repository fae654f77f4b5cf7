"""Sets of frames as stretches, counted and never listed.

Axes: K stretches, I indices, N frames.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Spans:
    """The frames of sorted, disjoint stretches [start, stop).

    Memory goes with the number of stretches (episodes, mostly), not with that of frames.

    Args:
        start_K: int64 (K,), first frame of each stretch.
        stop_K: int64 (K,), one past its last.

    Raises:
        ValueError: stretches that are not sorted and disjoint.
    """

    def __init__(self, start_K: IntArray, stop_K: IntArray) -> None:
        if (start_K[1:] < stop_K[:-1]).any() or (start_K > stop_K).any():
            raise ValueError("stretches of frames must be sorted and must not overlap")
        some = start_K < stop_K
        self.start_K = start_K[some].astype(np.int64)
        self.stop_K = stop_K[some].astype(np.int64)
        self._ends_K: IntArray = np.cumsum(self.stop_K - self.start_K, dtype=np.int64)

    @classmethod
    def where(cls, chosen_N: BoolArray) -> Self:
        """The frames at which ``chosen_N`` is True."""
        edges = np.diff(chosen_N.astype(np.int8), prepend=0, append=0)
        return cls(np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0])

    @classmethod
    def join(cls, parts: "list[Spans]") -> Self:
        """All frames of parts that follow each other."""
        empty = [np.empty(0, dtype=np.int64)]
        starts = np.concatenate(empty + [part.start_K for part in parts])
        return cls(starts, np.concatenate(empty + [part.stop_K for part in parts]))

    def __len__(self) -> int:
        return int(self._ends_K[-1]) if len(self._ends_K) else 0

    def clip(self, first: int, stop: int) -> "Spans":
        """The frames in [first, stop)."""
        return Spans(self.start_K.clip(first, stop), self.stop_K.clip(first, stop))

    def keep(self, chosen_N: BoolArray) -> "Spans":
        """The frames whose entry of ``chosen_N`` (one a frame of this set) is True."""
        frames_N = self.frames()[chosen_N]
        gaps = np.nonzero(np.diff(frames_N) > 1)[0]
        starts = np.concatenate([frames_N[:1], frames_N[gaps + 1]])
        return Spans(starts, np.concatenate([frames_N[gaps], frames_N[-1:]]) + 1)

    def frames(self, index_I: IntArray | None = None) -> IntArray:
        """The frames at positions ``index_I`` of this set; all of them by default."""
        if index_I is None:
            index_I = np.arange(len(self), dtype=np.int64)
        stretch_I = np.searchsorted(self._ends_K, index_I, side="right")
        frames_I: IntArray = self.stop_K[stretch_I] - (self._ends_K[stretch_I] - index_I)
        return frames_I
