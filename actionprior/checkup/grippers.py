"""Check the ranges, the use and the polarity of grippers.

Axes: N frames, D features of a group, E episodes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.checkup.advice import RECORD, another_offset
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import ActionWithState, Subject, moves

AGAINST = -0.5  # correlation below which action and state run in opposite directions
AN_END = 0.3  # share of the range that counts as an end


def check_grippers(subject: Subject) -> Iterator[Finding]:
    """Report each gripper's range and use, and compare the direction of its action and state."""
    for part in subject.actions:
        if not part.representation.is_gripper:
            continue
        for entry, feature in enumerate(part.group.features):
            column = part.values_ND[:, entry]
            low, high = float(column.min()), float(column.max())
            if not moves(column):
                continue  # reported as constant
            ends = [np.isclose(column, end, atol=0.01 * (high - low)) for end in (low, high)]
            start, middle = _course(subject, column)
            yield subject.say(
                "note",
                "gripper",
                f"action {feature}",
                f"ranges from {low:.3g} to {high:.3g}; it is at the low end in "
                f"{ends[0].mean():.0%} of frames and at the high end in {ends[1].mean():.0%}; "
                f"episodes start at {start:.0%} of the range and average {middle:.0%} in their "
                "middle third",
            )
    for pair in subject.pairs:
        if pair.representation.is_gripper:
            yield from _direction(subject, pair)


def _direction(subject: Subject, pair: ActionWithState) -> Iterator[Finding]:
    for entry, feature in enumerate(pair.action.features):
        action_N, state_N = pair.action_ND[:, entry], pair.state_ND[:, entry]
        if not (moves(action_N) and moves(state_N)):
            continue
        correlation = float(np.corrcoef(action_N, state_N)[0, 1])
        if correlation < AGAINST:
            yield subject.say(
                "warning",
                "gripper_polarity",
                f"action {feature}",
                f"moves against its state (correlation {correlation:.2f}): what opens one closes "
                "the other",
                advice=f"nothing, because a gripper is learnt unchanged; to correct it, {RECORD}",
            )


class _Gripper(NamedTuple):
    subject: Subject
    group: str
    feature: str
    start: float  # median position at the start of episodes, as a share of the range


def check_polarities(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Find grippers in a recipe that start their episodes at opposite ends of their range."""
    grippers = [
        _Gripper(subject, part.group.name, feature, _course(subject, part.values_ND[:, entry])[0])
        for subject in subjects
        for part in subject.actions
        if part.representation.is_gripper
        for entry, feature in enumerate(part.group.features)
        if moves(part.values_ND[:, entry])
    ]
    low = [g for g in grippers if g.start < AN_END]
    high = [g for g in grippers if g.start > 1 - AN_END]
    fewer, more = sorted((low, high), key=len)
    for g in fewer:
        other = more[0]
        yield g.subject.say(
            "warning",
            "gripper_polarity",
            f"action {g.feature}",
            f"starts its episodes at {g.start:.0%} of its range, but {other.feature!r} of "
            f"{other.subject.robot.name!r} starts at {other.start:.0%}: does the same end mean "
            "open in both?",
            advice=f"if it does not: {lines}"
            if (lines := another_offset(g.subject.robot, g.group))
            else RECORD,
        )


def _course(subject: Subject, column_N: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return a gripper's median start and its mean in the middle thirds, as shares of its range."""
    share_N = (column_N - column_N.min()) / np.ptp(column_N)
    middles = [
        share_N[start + (length // 3) : start + max(1, 2 * length // 3)].mean()
        for start, length in zip(subject.start_E, subject.lengths_E, strict=True)
        if length >= 3
    ]
    start = float(np.median(share_N[subject.start_E]))
    return start, float(np.mean(middles)) if middles else start
