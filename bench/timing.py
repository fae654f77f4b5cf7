"""How long calls take, for the benchmarks."""

import statistics
import time
from collections.abc import Callable


def median_seconds(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call, after one that is not counted.

    They take turns, so that a machine that is busy for a while is so for all of them.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            result = call()
            if turn:
                taken.append(time.perf_counter() - start)
            del result  # freed outside of what is timed
    return [statistics.median(taken) for taken in times]
