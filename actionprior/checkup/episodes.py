"""Check for episodes that are short, still, or duplicated.

Axes: N frames, E episodes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.subject import Subject
from actionprior.data.store import moving

MANY = 0.5  # share of padded steps, or of still chunks, that gives a warning
STILL = 0.9  # share of still chunks that makes an episode still
IDLE_THRESHOLD = 0.02  # the data modules' threshold for ``skip_idle``


def check_episodes(subject: Subject) -> Iterator[Finding]:
    """Find short, still and duplicated episodes, and report the shares of padding and idling."""
    yield from _lengths(subject)
    yield from _idle(subject)
    yield from _duplicates(subject)


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
        )
    missing = chunk - 1 - np.arange(chunk)
    padded = sum(float(np.maximum(missing[: int(n)], 0).sum()) for n in lengths_E)
    share = padded / (chunk * int(lengths_E.sum()))
    level: Level = "warning" if share > MANY else "note"
    yield subject.say(
        level, "padded", "", f"{share:.1%} of the steps of all chunks lie past an episode's end"
    )


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
    message += "; consider skip_idle" if idle > MANY else ""
    yield subject.say(level, "idle", "", message, at=at)
    share_E = np.add.reduceat(still_N, subject.start_E) / subject.lengths_E
    if (share_E > STILL).any() and not (share_E > STILL).all():
        episodes = np.nonzero(share_E > STILL)[0]
        yield subject.say(
            "warning",
            "still_episode",
            "",
            f"hardly anything moves in {share_E[episodes[0]]:.0%} of the episode's chunks "
            f"({len(episodes)} such episodes)",
            episode=int(episodes[0]),
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


def _duplicates(subject: Subject) -> Iterator[Finding]:
    seen: dict[bytes, int] = {}
    for episode, (start, stop) in enumerate(zip(subject.start_E, subject.stop_E, strict=True)):
        content = subject.action_ND[start:stop].tobytes() + subject.state_ND[start:stop].tobytes()
        first = seen.setdefault(content, episode)
        if first != episode:
            yield subject.say(
                "warning",
                "duplicate",
                "",
                f"is a copy of episode {first}: if only one of them is held out, validation uses "
                "training data",
                episode=episode,
            )
