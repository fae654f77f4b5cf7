"""Check for constant, saturated and outlying values, and for overrun LeRobot calibrations."""

from collections.abc import Iterator

import numpy as np

from actionprior.checkup.advice import LISTED, RECORD, exclude_listed, ignore
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import GroupValues, Subject, moves
from actionprior.embodiment import BoolArray
from actionprior.embodiment.normalization import RELATIVE_FLOOR

FAR = 5.0  # distance of an outlier from the 1-99 % range, in widths of that range
SATURATED = 0.05  # share of frames at exactly the highest or the lowest value
NEVER_MOVES = "nothing, if it never moves; otherwise record again"
CLIPPED = 0.01  # share of frames at exactly the end of a calibrated range


def check_values(subject: Subject) -> Iterator[Finding]:
    """Find constant, narrow and saturated features, outliers, and overrun calibrations."""
    for part in (*subject.actions, *subject.states):
        yield from _spread(subject, part)
        if part.group.unit in ("normalised", "normalized"):
            yield from _calibration(subject, part)
        elif not part.representation.rests_at_its_limits:
            yield from _saturation(subject, part)


def _spread(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    values_ND = part.representation.around_their_centre(part.values_ND)
    low, high = np.quantile(values_ND, [0.01, 0.99], axis=0)
    spread, moves_D = high - low, moves(values_ND)
    for entry, feature in enumerate(part.group.features):
        name, column = f"{part.kind} {feature}", values_ND[:, entry]
        floor = RELATIVE_FLOOR * spread.max()
        if not moves_D[entry]:
            lines = ignore(subject.robot, part.kind, feature)
            advice = f"if it never moves: {lines}" if lines else NEVER_MOVES
            message = f"is {column[0]:g} in every frame"
            yield subject.say("warning", "constant", name, message, advice=advice)
        elif spread[entry] < floor:
            yield subject.say(
                "note",
                "narrow",
                name,
                f"has a 1-99 % range of {spread[entry]:.3g}, but the widest in its group is "
                f"{spread.max():.3g}; it is scaled by {RELATIVE_FLOOR:.0%} of the widest",
            )
        margin = FAR * max(spread[entry], floor)
        far = (column > high[entry] + margin) | (column < low[entry] - margin)
        if margin > 0 and far.any():
            at = int(np.where(far, np.abs(column - (high[entry] + low[entry]) / 2), -1).argmax())
            yield subject.say(
                "warning",
                "outlier",
                name,
                f"is {column[at]:.4g}, but 98 % of values lie between {low[entry]:.4g} and "
                f"{high[entry]:.4g} ({int(far.sum())} such values)",
                at=at,
                advice=_without_outliers(subject, far),
            )


def _without_outliers(subject: Subject, far_N: BoolArray) -> str:
    episodes = np.unique(np.searchsorted(subject.stop_E, np.nonzero(far_N)[0], side="right"))
    if len(episodes) > LISTED or len(episodes) == len(subject.lengths_E):
        return "nothing, if the robot moves so; otherwise " + RECORD
    return f"if they are wrong: {exclude_listed(subject, episodes.tolist())}"


def _saturation(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    for entry, feature in enumerate(part.group.features):
        column = part.values_ND[:, entry]
        if not moves(column):
            continue  # reported as constant
        for what, end in (("highest", column.max()), ("lowest", column.min())):
            if (at_end := column == end).mean() > SATURATED:
                yield subject.say(
                    "note",
                    "saturated",
                    f"{part.kind} {feature}",
                    f"is at exactly {end + 0.0:.4g}, its {what} value, in {at_end.mean():.0%} of "
                    "frames: is it cut off at a limit, or does it rest there?",
                    at=int(at_end.argmax()),
                )


def _calibration(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    """Find values at or past the ends of LeRobot's calibrated range, -100 (grippers: 0) to 100."""
    lowest = part.representation.lowest_normalised
    for entry, feature in enumerate(part.group.features):
        name, column = f"{part.kind} {feature}", part.values_ND[:, entry]
        beyond = np.maximum(lowest - column, column - 100.0)
        if beyond.max() > 0.01:
            at = int(beyond.argmax())
            yield subject.say(
                "warning",
                "calibration",
                name,
                f"is {column[at]:.4g}, beyond the calibrated {lowest:g} to 100, in "
                f"{(beyond > 0.01).mean():.1%} of frames",
                at=at,
                advice="no option repairs this: calibrate the arm, and record again",
            )
        at_end = np.isclose(column, 100.0) | np.isclose(column, lowest)
        if not part.representation.rests_at_its_limits and at_end.mean() > CLIPPED:
            yield subject.say(
                "warning",
                "clipped",
                name,
                f"is at exactly an end of its calibrated range in {at_end.mean():.1%} of frames: "
                "its true position there is lost",
                at=int(at_end.argmax()),
                advice="no option repairs this: calibrate the arm, and record again",
            )
