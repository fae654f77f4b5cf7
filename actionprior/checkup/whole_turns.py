"""Check for angles that jump by a whole turn, which a plain position learns as a fast spin.

Axes: N frames, D features of a group.
"""

from collections.abc import Iterator

import numpy as np

from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import GroupValues, Subject
from actionprior.embodiment.representations.wrapped_angle import PERIODS

LIKE_A_TURN = 0.1  # relative distance from a whole turn within which a step counts as one


def check_whole_turns(subject: Subject) -> Iterator[Finding]:
    """Find angles that jump by a whole turn although their representation does not wrap."""
    for part in (*subject.actions, *subject.states):
        # Differences of orientations have no whole turns, and a gripper is no turning joint.
        exempt = part.representation.is_rotation or part.representation.is_gripper
        if part.group.unit in PERIODS and part.representation.period is None and not exempt:
            yield from _jumps(subject, part)


def _jumps(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    turn = PERIODS[part.group.unit]
    step_ND = np.abs(np.diff(part.values_ND, axis=0, prepend=part.values_ND[:1]))
    step_ND[subject.start_E] = 0.0
    jump_ND = np.abs(step_ND / turn - 1) < LIKE_A_TURN
    for entry in np.nonzero(jump_ND.any(axis=0))[0].tolist():
        at = int(jump_ND[:, entry].argmax())
        before, after = part.values_ND[at - 1, entry], part.values_ND[at, entry]
        yield subject.say(
            "warning",
            "whole_turn",
            f"{part.kind} {part.group.features[entry]}",
            f"jumps by a whole turn, from {before:.4g} to {after:.4g} {part.group.unit} "
            f"({int(jump_ND[:, entry].sum())} such jumps): give the joints that turn past their "
            "end a group with representation wrapped_angle, as action and as state",
            at=at,
        )
