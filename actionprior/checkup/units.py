"""Check for degrees in place of radians, millimetres in place of metres, and servo ticks.

Axes: N frames, D features of a group.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from actionprior.checkup.advice import RECORD, different_units, in_groups
from actionprior.checkup.advice import unit as unit_lines
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import ActionWithState, GroupValues, Subject, moves
from actionprior.embodiment import FloatArray

LARGEST = {"rad": 4 * np.pi, "m": 10.0}  # largest plausible value in each unit
FASTEST = {"rad": 4 * np.pi, "m": 5.0}  # largest plausible speed in each unit, per second
OTHER = {"rad": "degrees", "m": "millimetres"}
OTHER_UNIT = {"rad": "deg", "m": "mm"}
FACTORS = {
    180 / np.pi: ("degrees and radians", "deg", "rad"),
    1000.0: ("millimetres and metres", "mm", "m"),
}
LIKE = 0.15  # relative distance from a factor within which a ratio counts as that factor
TICKS = 4096  # ticks per turn of the common bus servos
FEW_TICKS = 200  # whole numbers up to this value need not be ticks
ODD_SCALE = 5.0  # ratio of action and state ranges above which it is reported


def check_units(subject: Subject) -> Iterator[Finding]:
    """Find values that the unit makes implausible, and actions scaled unlike their state."""
    for part in (*subject.actions, *subject.states):
        yield from _size(subject, part)
    for pair in subject.pairs:
        if not pair.representation.is_gripper:  # a command of -1 and 1, and a width
            yield from _scale(subject, pair)


def _size(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    unit, values_ND = part.group.unit, np.abs(part.values_ND)
    frame, entry = np.unravel_index(int(values_ND.argmax()), values_ND.shape)
    largest, name = float(values_ND[frame, entry]), f"{part.kind} {part.group.features[entry]}"
    known = unit in LARGEST
    counts = unit in ("ticks", "steps") or part.representation.may_be_ticks
    if _ticks(part.values_ND) and not counts:
        yield subject.say(
            "error",
            "unit",
            f"{part.kind} {part.group.name}",
            f"has whole numbers from {part.values_ND.min():g} to {part.values_ND.max():g}, but "
            f"unit {unit!r}: are they servo ticks, {TICKS} per turn?",
            at=int(frame),
            advice=_if_so(subject, part, "ticks"),
        )
    elif known and largest > LARGEST[unit]:
        count = int((values_ND.max(axis=0) > LARGEST[unit]).sum())
        yield subject.say(
            "error",
            "unit",
            name,
            f"reaches {largest:.4g} {unit} ({count} of the {values_ND.shape[1]} features of "
            f"{part.group.name!r} do); is it in {OTHER[unit]}?",
            at=int(frame),
            advice=_if_so(subject, part, OTHER_UNIT[unit]),
        )
    elif (
        known
        and not part.representation.is_rotation
        and ((speed := _speed(subject, part)).max() > FASTEST[unit])
    ):
        fastest = int(speed.argmax())
        yield subject.say(
            "warning",
            "unit",
            f"{part.kind} {part.group.features[fastest]}",
            f"moves at {speed[fastest]:.3g} {unit}/s in its fastest 1 % of steps; is it in "
            f"{OTHER[unit]}?",
            advice=_if_so(subject, part, OTHER_UNIT[unit]),
        )
    elif unit in ("deg", "degrees", "°") and 0 < largest < np.pi:
        yield subject.say(
            "warning",
            "unit",
            name,
            f"never exceeds {largest:.3g} degrees; is it in radians?",
            advice=_if_so(subject, part, "rad"),
        )


def _if_so(subject: Subject, part: GroupValues, name: str) -> str:
    return f"if so: {unit_lines(subject.robot, part.kind, part.group.name, name)}"


def _ticks(values_ND: FloatArray) -> bool:
    """Check whether values look like servo ticks."""
    integer = bool((values_ND == np.round(values_ND)).all())
    return integer and values_ND.min() >= 0 and FEW_TICKS < values_ND.max() <= TICKS


def _speed(subject: Subject, part: GroupValues) -> npt.NDArray[np.float64]:
    """Compute the speed (D,) that each feature exceeds in 1 % of its steps [units per second]."""
    before_ND = np.concatenate([part.values_ND[:1], part.values_ND[:-1]])
    steps_ND = np.abs(part.representation.apart(part.values_ND, before_ND))
    steps_ND[subject.start_E] = 0.0
    fastest: npt.NDArray[np.float64] = (
        np.quantile(steps_ND, 0.99, axis=0) * subject.robot.control_hz
    )
    return fastest


def _scale(subject: Subject, pair: ActionWithState) -> Iterator[Finding]:
    spreads = [
        np.subtract(*np.quantile(values_ND, [0.99, 0.01], axis=0))
        for values_ND in (pair.action_ND, pair.state_ND)
    ]
    moving = moves(pair.action_ND) & moves(pair.state_ND) & (spreads[0] > 0) & (spreads[1] > 0)
    if not moving.any():
        return
    ratio = float(np.median(spreads[0][moving] / spreads[1][moving]))
    found = f"its actions range over {ratio:.3g} times the range of state {pair.state.name!r}"
    for factor, (units, small, large) in FACTORS.items():
        for f, action, state in ((factor, small, large), (1 / factor, large, small)):
            if abs(ratio / f - 1) < LIKE:
                lines = different_units(
                    subject.robot, pair.action, {"action": action, "state": state}
                )
                message = f"{found}: {units} are mixed up"
                advice = f"to learn the action absolute: {lines}" if lines else RECORD
                yield subject.say("error", "unit", pair.action.name, message, advice=advice)
                return
    if not 1 / ODD_SCALE < ratio < ODD_SCALE:
        lines = in_groups({("action", pair.action.name): {"relative_to": ""}})
        yield subject.say(
            "warning",
            "scale",
            pair.action.name,
            f"{found}: are both in the same unit?",
            advice=f"if not: {lines}, and the `unit` of each in both groups",
        )
