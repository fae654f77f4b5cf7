"""Check the timestamps against the control rate."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.checkup.advice import EXCLUDE, on_robot
from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.subject import Subject

WRONG = 0.05  # relative error of the rate above which training refuses the data
DRIFT = 0.01  # relative error of the rate above which it is reported
GAP = 1.5  # periods between two frames above which a frame is lost
UNEVEN = 0.1  # standard deviation of the time between frames, as a share of a period
GRID = 1e-3  # largest distance from the grid of computed timestamps, as a share of a period


class _Steps(NamedTuple):
    """Time from each frame to the next of its episode."""

    first_K: npt.NDArray[np.int64]  # frame at which each step starts
    seconds_K: npt.NDArray[np.float64]
    episode_K: npt.NDArray[np.int64]


def check_timing(subject: Subject) -> Iterator[Finding]:
    """Find timestamps that do not increase, a wrong or drifting rate, gaps and jitter."""
    if subject.contents.timestamp_N is None:
        return
    time_N: npt.NDArray[np.float64] = subject.contents.timestamp_N[:]
    steps, hz = _steps(subject, time_N), subject.robot.control_hz
    if len(steps.seconds_K) == 0:
        return
    yield from _order(subject, time_N, steps)
    yield from _rate(subject, steps)
    yield from _gaps(subject, steps)
    yield from _starts(subject, time_N)
    row_N = np.arange(len(time_N)) - np.repeat(subject.start_E, subject.lengths_E)
    if np.abs(time_N * hz - row_N).max() < GRID:
        yield subject.say(
            "note",
            "timestamps",
            "timestamp",
            "is the frame's number divided by the rate, as lerobot writes it: lost or late "
            "frames cannot be seen",
        )


def _order(subject: Subject, time_N: npt.NDArray[np.float64], steps: _Steps) -> Iterator[Finding]:
    stuck = steps.seconds_K <= 0
    if stuck.any():
        at = int(steps.first_K[stuck.argmax()]) + 1
        yield subject.say(
            "warning" if subject.contents.trust_fps else "error",
            "timestamps",
            "timestamp",
            f"is {time_N[at]:.4f} s after {time_N[at - 1]:.4f} s: time does not increase "
            f"({int(stuck.sum())} such frames)",
            at=at,
            episodes=np.unique(steps.episode_K[stuck]).tolist(),
            advice=_by_rate(subject),
        )


def _gaps(subject: Subject, steps: _Steps) -> Iterator[Finding]:
    hz = subject.robot.control_hz
    periods = steps.seconds_K * hz
    if periods.max() > GAP:
        worst = int(periods.argmax())
        yield subject.say(
            "warning",
            "gap",
            "timestamp",
            f"the next frame comes {steps.seconds_K[worst]:.3f} s after this one, "
            f"{periods[worst]:.1f} periods ({int((periods > GAP).sum())} such gaps)",
            at=int(steps.first_K[worst]),
            episodes=np.unique(steps.episode_K[periods > GAP]).tolist(),
            advice=_by_timestamps(subject, ", or " + EXCLUDE) or EXCLUDE,
        )
    jitter = float(np.std(steps.seconds_K[periods <= GAP], dtype=np.float64)) * hz
    if jitter > UNEVEN:
        yield subject.say(
            "warning",
            "jitter",
            "timestamp",
            f"frames are {steps.seconds_K.min():.4f} to {steps.seconds_K.max():.4f} s apart, with "
            f"a standard deviation of {jitter:.0%} of a period",
            advice=_by_timestamps(subject, ""),
        )


def _starts(subject: Subject, time_N: npt.NDArray[np.float64]) -> Iterator[Finding]:
    late = time_N[subject.start_E]
    if np.abs(late).max() > GAP / subject.robot.control_hz:
        worst = int(np.abs(late).argmax())
        yield subject.say(
            "warning",
            "timestamps",
            "timestamp",
            f"the episode starts at {late[worst]:.3f} s instead of 0",
            at=int(subject.start_E[worst]),
            advice=""
            if subject.contents.trust_fps
            else f"if its first frame is the first of the video: {on_robot(trust_fps=True)}",
        )


def _by_rate(subject: Subject) -> str:
    """Advise to exclude episodes, or to believe the frame rate."""
    if subject.contents.trust_fps:
        return EXCLUDE
    return f"{on_robot(trust_fps=True)} believes the frame rate, or {EXCLUDE}"


def _by_timestamps(subject: Subject, more: str) -> str:
    """Advise to resample, unless training resamples or believes the frame rate already."""
    if subject.contents.trust_rate:
        return ""
    return f"{on_robot(resample=True)} evens it out by the timestamps{more}"


def _steps(subject: Subject, time_N: npt.NDArray[np.float64]) -> _Steps:
    inside = np.ones(len(time_N), dtype=np.bool_)
    inside[subject.stop_E - 1] = False
    first_K = np.nonzero(inside)[0]
    episode_K = np.searchsorted(subject.stop_E, first_K, side="right")
    return _Steps(first_K, time_N[first_K + 1] - time_N[first_K], episode_K)


def _rate(subject: Subject, steps: _Steps) -> Iterator[Finding]:
    hz = subject.robot.control_hz
    count_E = np.bincount(steps.episode_K, minlength=len(subject.lengths_E))
    seconds_E = np.bincount(steps.episode_K, steps.seconds_K, minlength=len(subject.lengths_E))
    known = np.nonzero((count_E > 0) & (seconds_E > 0))[0]
    if len(known) == 0:
        return
    rate = count_E[known] / seconds_E[known]
    off = np.abs(rate / hz - 1)
    if off.max() <= DRIFT:
        return
    worst = int(off.argmax())
    drift = float(seconds_E[known[worst]] - count_E[known[worst]] / hz)
    level: Level = "error" if off.max() > WRONG and not subject.contents.trust_rate else "warning"
    advice = f"{on_robot(resample=True)}, or {on_robot(trust_fps=True)} to believe the frame rate"
    yield subject.say(
        level,
        "rate",
        "timestamp",
        f"runs at {rate[worst]:.2f} Hz, but the robot at {hz:g} Hz: {abs(drift):.2f} s apart at "
        f"the episode's end (all episodes: {rate.min():.2f} to {rate.max():.2f} Hz, "
        f"{int((off > DRIFT).sum())} of {len(rate)} off by more than 1 %)",
        episode=int(known[worst]),
        advice="" if subject.contents.trust_rate else advice,
    )
