"""Check for angles that jump by a whole turn, which a plain position learns as a fast spin.

Axes: N frames, D features of a group, E episodes.
"""

from collections.abc import Iterator

import numpy as np

from actionprior.checkup.advice import wrapped_angles
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import GroupValues, Subject
from actionprior.embodiment import BoolArray, FloatArray
from actionprior.embodiment.representations.wrapped_angle import PERIODS

LIKE_A_TURN = 0.1  # distance from a whole turn within which a step counts as one [turns]
FASTER = 2.0  # steps across the end may be this much faster than 99 % of the others
AWAY = 0.25  # distance from the other episodes beyond which one may be a turn away [turns]
NARROW = 0.5  # range of an episode within which a turn away differs from motion [turns]


def check_whole_turns(subject: Subject) -> Iterator[Finding]:
    """Find angles that jump by a whole turn although their representation does not wrap.

    They may jump within an episode, between episodes, and between an action and its state.
    """
    for pair in subject.pairs:
        if pair.state.unit in PERIODS and pair.representation.period is None:
            if pair.representation.is_rotation or pair.representation.is_gripper:
                continue
            turns_ND = (pair.action_ND - pair.state_ND) / PERIODS[pair.state.unit]
            away_ND = (np.abs(turns_ND) > AWAY) & _like_turns(turns_ND, LIKE_A_TURN)
            for entry in np.nonzero(away_ND.any(axis=0))[0].tolist():
                at = int(away_ND[:, entry].argmax())
                yield subject.say(
                    "warning",
                    "whole_turn",
                    f"action {pair.action.features[entry]}",
                    f"is a whole turn away from its state, {pair.action_ND[at, entry]:.4g} and "
                    f"{pair.state_ND[at, entry]:.4g} {pair.state.unit}, in "
                    f"{away_ND[:, entry].mean():.1%} of frames",
                    at=at,
                    advice=wrapped_angles(subject.robot, "action", pair.action.name),
                )
    for part in (*subject.actions, *subject.states):
        # Differences of orientations have no whole turns, and a gripper is no turning joint.
        exempt = part.representation.is_rotation or part.representation.is_gripper
        if part.group.unit in PERIODS and part.representation.period is None and not exempt:
            yield from _jumps(subject, part)
            yield from _between_episodes(subject, part)


def _jumps(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    turn = PERIODS[part.group.unit]
    step_ND = np.abs(np.diff(part.values_ND, axis=0, prepend=part.values_ND[:1])) / turn
    step_ND[subject.start_E] = 0.0
    for entry, feature in enumerate(part.group.features):
        step_N = step_ND[:, entry]
        usual = float(np.quantile(step_N[step_N < 0.5], 0.99)) if (step_N < 0.5).any() else 0.0
        jump_N = (step_N > 0.5) & _like_turns(step_N, min(max(LIKE_A_TURN, FASTER * usual), 0.4))
        if not jump_N.any():
            continue
        at = int(jump_N.argmax())
        before, after = part.values_ND[at - 1, entry], part.values_ND[at, entry]
        yield subject.say(
            "warning",
            "whole_turn",
            f"{part.kind} {feature}",
            f"jumps by a whole turn, from {before:.4g} to {after:.4g} {part.group.unit} "
            f"({int(jump_N.sum())} such jumps)",
            at=at,
            advice=wrapped_angles(subject.robot, part.kind, part.group.name),
        )


def _between_episodes(subject: Subject, part: GroupValues) -> Iterator[Finding]:
    """Find episodes that lie a whole turn away from the others, without a jump in them."""
    if len(subject.lengths_E) < 2:
        return
    low_ED = np.minimum.reduceat(part.values_ND, subject.start_E) / PERIODS[part.group.unit]
    high_ED = np.maximum.reduceat(part.values_ND, subject.start_E) / PERIODS[part.group.unit]
    low_D, high_D = np.median(low_ED, axis=0), np.median(high_ED, axis=0)
    distance_ED = np.maximum(low_ED - high_D, low_D - high_ED)
    turns_ED = np.round((low_ED + high_ED - low_D - high_D) / 2)
    # Moved back by these turns, the episode overlaps the range of the others.
    back_ED = np.maximum(low_ED - turns_ED - high_D, low_D - high_ED + turns_ED)
    narrow_D = high_D - low_D < NARROW
    away_ED = (distance_ED > AWAY) & (turns_ED != 0) & (back_ED <= 0) & narrow_D
    for entry in np.nonzero(away_ED.any(axis=0))[0].tolist():
        episode = int(away_ED[:, entry].argmax())
        first = part.values_ND[subject.start_E[episode], entry]
        yield subject.say(
            "warning",
            "whole_turn",
            f"{part.kind} {part.group.features[entry]}",
            f"lies a whole turn away from the other episodes, at {first:.4g} {part.group.unit} "
            f"({int(away_ED[:, entry].sum())} such episodes)",
            at=int(subject.start_E[episode]),
            advice=wrapped_angles(subject.robot, part.kind, part.group.name),
        )


def _like_turns(turns: FloatArray, tolerance: float) -> BoolArray:
    """Find numbers of turns that are near a whole number of turns other than 0."""
    nearest = np.round(turns)
    near: BoolArray = (nearest != 0) & (np.abs(turns - nearest) < tolerance)
    return near
