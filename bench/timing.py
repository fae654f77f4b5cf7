"""Timing of function calls, for the benchmarks."""

import statistics
import time
from collections.abc import Callable


def median_seconds(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median seconds of each call, after one warm-up call.

    The calls take turns, so that a machine that is busy for a while slows all of them.

    Args:
        repeats: Timed calls of each function.
        calls: Functions to time.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            result = call()
            if turn:
                taken.append(time.perf_counter() - start)
            del result  # freed outside of the timed section
    return [statistics.median(taken) for taken in times]
