"""Check for jumps, for values that are held and then jump, and for frozen states."""

from collections.abc import Iterator

import numpy as np

from actionprior.checkup.channels import Channel, Event, Rows, channels, report_events
from actionprior.checkup.finding import Finding
from actionprior.checkup.followed import Followed, followed_entries
from actionprior.checkup.single_frames import LONGEST
from actionprior.checkup.subject import Subject
from actionprior.embodiment.representations.wrapped_angle import PERIODS

JUMP, JUMP_SHARE = 4.0, 0.1  # size of a jump: in steps that 0.5 % exceed, and of the range
HELD = 4  # repeated values that count as held
HELD_JUMP, HELD_SHARE = 2.5, 0.03  # jump after them: in steps that 5 % exceed, and of the range
FROZEN, FROZEN_FRAMES = 0.4, 8  # shortest frozen stretch [s] and [frames]
COMMANDED = 0.1  # commanded motion that a state must follow, as a share of its range
AN_END = 0.01  # distance from the end of the range within which a state may be at its limit


def check_stretches(subject: Subject) -> Iterator[Finding]:
    """Find jumps, held stretches that end in a jump, and states that freeze under commands."""
    moving = channels(subject)
    steady = [c for c in moving if not (c.part.representation.is_gripper or c.is_change)]
    held = [event for channel in steady for event in _held(channel)]
    starts = {(id(event.channel), event.at) for event in held}
    frozen = [
        event
        for entry in followed_entries(subject)
        for channel in steady
        if channel.part.kind == "state" and channel.name == entry.channel
        for event in _frozen(subject, channel, entry)
        if (id(event.channel), event.at) not in starts
    ]
    frozen = list({(id(e.channel), e.at): e for e in frozen}.values())
    jumps = [event for channel in steady for event in _jumps(subject, channel)]
    yield from report_events(subject, "held", held, moving)
    yield from report_events(subject, "frozen_state", frozen, moving)
    yield from report_events(subject, "jump", jumps, moving)


def _runs(channel: Channel) -> tuple[Rows, Rows]:
    """Return the first frames and the stops of stretches of equal values within episodes."""
    changes_N = channel.step_N > 0
    changes_N[channel.start_E] = True
    first_K = np.nonzero(changes_N)[0]
    return first_K, np.append(first_K[1:], len(changes_N))


def _held(channel: Channel) -> Iterator[Event]:
    first_K, stop_K = _runs(channel)
    least = max(HELD_JUMP * channel.usual_step(0.95), HELD_SHARE * channel.scale)
    inside_K = (stop_K < len(channel.step_N)) & ~np.isin(stop_K, channel.start_E)
    long_K = inside_K & (stop_K - first_K > HELD)
    for first, stop in zip(first_K[long_K].tolist(), stop_K[long_K].tolist(), strict=True):
        if (step := float(channel.step_N[stop])) > least:
            share = step / channel.scale
            yield Event(
                channel,
                first,
                share,
                f"is held for {stop - first} frames and then jumps by {share:.0%} of its range",
            )


def _frozen(subject: Subject, channel: Channel, entry: Followed) -> Iterator[Event]:
    first_K, stop_K = _runs(channel)
    least = max(FROZEN_FRAMES, round(FROZEN * subject.robot.control_hz))
    long_K = stop_K - first_K >= least
    values_N = channel.values_NC[:, 0]
    low, high = float(values_N.min()), float(values_N.max())
    for first, stop in zip(first_K[long_K].tolist(), stop_K[long_K].tolist(), strict=True):
        commanded = float(np.ptp(entry.action_N[first:stop]))
        at_end = min(values_N[first] - low, high - values_N[first]) < AN_END * (high - low)
        if at_end and not channel.part.representation.is_rotation:
            continue
        if commanded > COMMANDED * max(channel.scale, float(np.ptp(entry.state_N)) / 4):
            share = commanded / channel.scale
            yield Event(
                channel,
                first,
                share,
                f"is exactly the same for {stop - first} frames, while action {entry.action!r} "
                f"moves by {share:.0%} of its range",
            )


def _jumps(subject: Subject, channel: Channel) -> Iterator[Event]:
    step_N, unit = channel.step_N, channel.part.group.unit
    jumps_N = step_N > max(JUMP * channel.usual_step(0.995), JUMP_SHARE * channel.scale)
    if unit in PERIODS and not channel.part.representation.is_rotation:
        turns_N = step_N / PERIODS[unit]
        jumps_N &= (np.round(turns_N) == 0) | (np.abs(turns_N - np.round(turns_N)) > 0.1)
    for at in np.nonzero(jumps_N)[0].tolist():
        # Wild frames jump twice, and a held value at its end; they are reported as such.
        near = step_N[max(0, at - LONGEST) : at + LONGEST + 1] > 0.5 * step_N[at]
        held = at > HELD and not step_N[at - HELD : at].any()
        if near.sum() > 1 or held:
            continue
        share = float(step_N[at]) / channel.scale
        yield Event(channel, at, share, f"jumps by {share:.0%} of its range within one frame")
