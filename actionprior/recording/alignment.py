"""Choose the sample of each vector and camera that a frame of a dataset takes.

Axes: T samples or frames.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actionprior.errors import shown
from actionprior.recording.formats.episode import ConversionError, Numbers, SourceEpisode

TimeUnit = Literal["s", "ms", "us", "ns"]
UNITS: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
EARLY = 0.25
"""Largest share of a frame by which a sample may be later than its frame."""
MOST_FRAMES_PER_SAMPLE = 1000


@dataclass(frozen=True)
class Clock:
    """How the time of a recording is read.

    Attributes:
        control_hz: Frames per second of the dataset.
        time_key: Key of the time; empty: each sample is a frame.
        time_unit: Unit of that time.
        max_gap: Longest time for which a sample stands [s].
    """

    control_hz: int
    time_key: str = ""
    time_unit: TimeUnit = "s"
    max_gap: float = 1.0


def align(
    recorded: SourceEpisode, series: dict[str, tuple[int, Numbers | None]], clock: Clock
) -> dict[str, NDArray[np.int64]]:
    """Return for each key the index of the sample that each frame takes.

    Args:
        recorded: Episode.
        series: Number of samples of each key, and their times if they have their own.
        clock: How time is read.

    Raises:
        ConversionError: Lengths differ without times, or times are no ascending numbers, do not
            overlap, or have gaps.
    """
    own: Numbers | None = None
    if clock.time_key:
        own = recorded.vector(clock.time_key).values_Tn[:, 0] * UNITS[clock.time_unit]
    timed = {key: own if time_T is None else time_T for key, (_, time_T) in series.items()}
    times = {key: time_T for key, time_T in timed.items() if time_T is not None}
    counts = {key: count for key, (count, _) in series.items()}
    for key, time_T in times.items():
        if len(time_T) != counts[key]:
            raise ConversionError(
                f"{recorded.name}: {shown(key)} has {counts[key]} samples, but "
                f"{shown(clock.time_key)} has {len(time_T)} (--time_key)"
            )
    if not times:
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{shown(key)} {count}" for key, count in counts.items())
            raise ConversionError(
                f"{recorded.name}: the numbers of samples differ ({listed}), expected equal ones"
            )
        return {key: np.arange(count) for key, count in counts.items()}
    for key, time_T in times.items():
        _check_times(f"{recorded.name}: the time of {shown(key)}", time_T)
    frame_T = _frame_times(recorded.name, times, clock)
    return {key: _newest(recorded, key, t, frame_T, clock) for key, t in times.items()}


def _check_times(place: str, time_T: Numbers) -> None:
    if not np.isfinite(time_T).all():
        raise ConversionError(
            f"{place} is not finite at sample {int(np.isfinite(time_T).argmin())}"
        )
    if (back := np.diff(time_T) < 0).any():
        at = int(back.argmax())
        raise ConversionError(
            f"{place} goes back from {time_T[at]:.9g} s to {time_T[at + 1]:.9g} s at sample "
            f"{at + 1}"
        )


def _frame_times(name: str, times: dict[str, Numbers], clock: Clock) -> Numbers:
    start = max(time_T[0] for time_T in times.values())
    stop = min(time_T[-1] for time_T in times.values())
    if stop < start:
        raise ConversionError(f"{name}: its parts were not recorded at the same time")
    early = min(_early(time_T, clock) for time_T in times.values())
    count = (stop - start + early) * clock.control_hz
    if count > MOST_FRAMES_PER_SAMPLE * max(map(len, times.values())):
        raise ConversionError(
            f"{name}: lasts {stop - start:.6g} s with {max(map(len, times.values()))} samples; is "
            f"the time in another unit than {clock.time_unit} (--time_unit)?"
        )
    frame_T: Numbers = start + np.arange(int(count) + 1) / clock.control_hz
    return frame_T


def _early(time_T: Numbers, clock: Clock) -> float:
    """Return by how much a sample may be later than its frame [s], since clocks jitter."""
    between = float(np.median(np.diff(time_T))) if len(time_T) > 1 else 0.0
    return min(EARLY / clock.control_hz, between / 2)


def _newest(
    recorded: SourceEpisode, key: str, time_T: Numbers, frame_T: Numbers, clock: Clock
) -> NDArray[np.int64]:
    """Return the index of the newest sample at each frame."""
    index = np.searchsorted(time_T, frame_T + _early(time_T, clock), side="right") - 1
    age_T = frame_T - time_T[index]
    if (worst := int(age_T.argmax())) >= 0 and age_T[worst] > clock.max_gap:
        raise ConversionError(
            f"{recorded.name}: {shown(key)} has no sample for {age_T[worst]:.3g} s before "
            f"{frame_T[worst] - frame_T[0]:.3g} s, more than --max_gap {clock.max_gap:g}; cut the "
            "recording, or raise it if the value holds in between"
        )
    return index.astype(np.int64)
