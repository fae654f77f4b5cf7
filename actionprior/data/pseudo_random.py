"""Pseudo-random permutations that are computed entry by entry and need no memory.

An epoch of 10⁹ frames can be shuffled without a list of its order.

Axes: I indices.
"""

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_ROUNDS = 6
_STEP, _ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)


def mix(*parts: int | IntArray | Words) -> Words:
    """Hash numbers, or equally long arrays of numbers, to 64 random-looking bits."""
    with np.errstate(over="ignore"):
        x: Any = _STEP
        for part in parts:
            word = np.uint64(part % 2**64) if isinstance(part, int) else part.astype(np.uint64)
            x = _scramble((x ^ word) * _STEP + _ODD)
    return np.asarray(x, dtype=np.uint64)


def _scramble(x: Any) -> Any:  # noqa: ANN401  scalars and arrays of uint64
    """Apply the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index_I: IntArray, size: int, key: Words) -> IntArray:
    """Permute indices 0 … size - 1 by the permutation that ``key`` selects.

    The permutation is a Feistel network over pairs (l, r) of numbers below ⌈√size⌉. A result
    beyond ``size`` is permuted again until it lies below (cycle walking: Black and Rogaway,
    CT-RSA 2002).

    Args:
        index_I: int64 (I,), the indices.
        size: Length of the permuted range.
        key: One key for all indices, or one per index (I,).
    """
    side = np.uint64(max(1, isqrt(max(0, size - 1)) + 1))
    left, right = np.divmod(index_I.astype(np.uint64), side)
    keys = np.broadcast_to(key, index_I.shape)
    out = np.empty_like(index_I)
    waiting = np.arange(len(index_I))
    while len(waiting):
        for turn in range(_ROUNDS):
            drawn = _scramble(right * _STEP + (keys + np.uint64(turn * int(_ODD) % 2**64)))
            left, right = right, (left + drawn) % side
        where = (left * side + right).astype(np.int64)
        inside = where < size
        out[waiting[inside]] = where[inside]
        waiting, keys = waiting[~inside], keys[~inside]
        left, right = left[~inside], right[~inside]
    return out
