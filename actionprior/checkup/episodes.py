"""Check for episodes that are short or still.

Axes: N frames, E episodes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup.advice import EXCLUDE, LISTED, exclude_listed
from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.subject import Subject
from actionprior.data.store import moving

MANY = 0.5  # share of padded steps, or of still chunks, that gives a warning
STILL = 0.9  # share of still chunks that makes an episode still
IDLE_THRESHOLD = 0.02  # the data modules' threshold for ``skip_idle``


def check_episodes(subject: Subject) -> Iterator[Finding]:
    """Find short and still episodes, and report the shares of padding and idling."""
    yield from _lengths(subject)
    yield from _idle(subject)


def _lengths(subject: Subject) -> Iterator[Finding]:
    chunk, lengths_E = subject.chunk_length, subject.lengths_E
    short = np.nonzero(lengths_E < chunk)[0]
    if len(short):
        yield subject.say(
            "warning",
            "short",
            "",
            f"has {lengths_E[short[0]]} frames, fewer than a chunk of {chunk} "
            f"({len(short)} such episodes)",
            episode=int(short[0]),
            advice=_shorter_chunk(subject, int(lengths_E.min()))
            + f", or to exclude the episodes {exclude_listed(subject, short.tolist())}"
            * (len(short) <= LISTED and len(short) < len(lengths_E)),
        )
    share = _padded(lengths_E, chunk)
    advice = ""
    if share > MANY:
        advice = _shorter_chunk(
            subject, next((h for h in range(chunk, 1, -1) if _padded(lengths_E, h) <= MANY), 1)
        )
    yield subject.say(
        "warning" if share > MANY else "note",
        "padded",
        "",
        f"{share:.1%} of the steps of all chunks lie past an episode's end",
        advice=advice,
    )


def _padded(lengths_E: npt.NDArray[np.int64], chunk: int) -> float:
    """Share of the steps of all chunks that lie past the end of their episode."""
    missing = chunk - 1 - np.arange(chunk)  # of the last frame's chunk, the one before, …
    padded = sum(float(missing[: int(n)].sum()) for n in lengths_E)
    return padded / (chunk * int(lengths_E.sum()))


def _shorter_chunk(subject: Subject, chunk: int) -> str:
    """Name the option for chunks of this many recorded frames."""
    length = max(1, int(chunk * subject.recipe_chunk / subject.chunk_length))
    return f"`--data.chunk_length {length}`"


def _idle(subject: Subject) -> Iterator[Finding]:
    frames_N = torch.arange(len(subject.store))
    moves = moving(subject.store, frames_N, subject.chunk_length, IDLE_THRESHOLD)
    still_N = ~moves.numpy()
    idle, (first, length) = float(still_N.mean()), _longest(still_N, subject.start_E)
    level: Level = "warning" if idle > MANY else "note"
    message, at = f"hardly anything moves in {idle:.0%} of chunks", -1
    if length >= subject.chunk_length:
        seconds, at = length / subject.robot.control_hz, first
        message += f"; the longest such stretch starts here and lasts {seconds:.1f} s"
    advice = "`--data.skip_idle true` leaves them out" if idle > MANY else ""
    yield subject.say(level, "idle", "", message, at=at, advice=advice)
    share_E = np.add.reduceat(still_N, subject.start_E) / subject.lengths_E
    if (share_E > STILL).any() and not (share_E > STILL).all():
        episodes = np.nonzero(share_E > STILL)[0]
        yield subject.say(
            "warning",
            "still_episode",
            "",
            f"hardly anything moves in {share_E[episodes[0]]:.0%} of the episode's chunks",
            episode=int(episodes[0]),
            episodes=episodes.tolist(),
            advice=EXCLUDE,
        )


def _longest(still_N: npt.NDArray[np.bool_], start_E: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return the first frame and the length of the longest still stretch, or -1 and 0."""
    edge_N = np.diff(still_N, prepend=False)
    edge_N[start_E] = still_N[start_E]  # a stretch ends with its episode
    firsts = np.nonzero(edge_N & still_N)[0]
    if len(firsts) == 0:
        return -1, 0
    ends = np.union1d(np.nonzero(~still_N)[0], [*start_E, len(still_N)])
    lengths = ends[np.searchsorted(ends, firsts, side="right")] - firsts
    return int(firsts[lengths.argmax()]), int(lengths.max())
