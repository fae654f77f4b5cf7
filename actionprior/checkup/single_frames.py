"""Check for single frames that are wild or zero, after which motion continues as before."""

from collections.abc import Iterator

import numpy as np

from actionprior.checkup.channels import Channel, Event, Flags, channels, report_events
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import Subject

LONGEST = 3  # frames that may be wild in a row
NOISE = 5.0  # size of a wild frame, as a multiple of what 1 % of frames exceed
SHARE, OF_CHANGES = 0.1, 0.2  # and as a share of the range, of places and of deltas
OF_ZEROS = 0.02  # jump before or after zeros, as a share of the range
STEP = 3.0  # size of several wild frames, as a multiple of a step that 1 % of steps exceed
RARE = 0.05  # largest share of zero rows that counts as a fault


def check_single_frames(subject: Subject) -> Iterator[Finding]:
    """Find frames that leave the motion and return to it, and frames of zeros only."""
    moving = channels(subject)
    zeros = _zeros(subject, moving)
    zero_N = {
        kind: np.zeros(len(subject.action_ND), dtype=np.bool_) for kind in ("action", "state")
    }
    for event in zeros:
        zero_N[event.channel.part.kind][event.at : event.at + LONGEST] = True
    wild = [event for channel in moving for event in _wild(subject, channel)]
    wild = [event for event in wild if not zero_N[event.channel.part.kind][event.at]]
    yield from report_events(subject, "zero_frame", zeros, moving)
    yield from report_events(subject, "wild_frame", wild, moving)


def _wild(subject: Subject, channel: Channel) -> Iterator[Event]:
    step_N, count = channel.step_N, len(channel.step_N)
    left_N = np.repeat(subject.stop_E, subject.lengths_E) - np.arange(count)
    taken_N = np.zeros(count, dtype=np.bool_)
    for width in range(1, LONGEST + 1):
        # Frames at .. at + width - 1 are wild; the frames around them are in the episode.
        at_K = np.nonzero(left_N > width)[0]
        at_K = at_K[~np.isin(at_K, subject.start_E)]
        if len(at_K) == 0:
            continue
        across_K = channel.apart(at_K + width, at_K - 1)
        out_K = np.minimum(step_N[at_K], step_N[at_K + width]) - across_K
        share = OF_CHANGES if channel.is_change else SHARE
        least = max(NOISE * float(np.quantile(out_K, 0.99)), share * channel.scale)
        if width > 1:
            least = max(least, STEP * channel.usual_step(0.99))
        for index in np.nonzero(out_K > least)[0].tolist():
            at = int(at_K[index])
            if taken_N[at : at + width].any():
                continue
            taken_N[at : at + width] = True
            share = float(out_K[index]) / channel.scale
            frames = "for one frame" if width == 1 else f"for {width} frames"
            yield Event(
                channel,
                at,
                share,
                f"leaves its motion {frames}, by {share:.0%} of its range, and returns to it",
            )


def _zeros(subject: Subject, moving: list[Channel]) -> list[Event]:
    """Find rare rows in which a whole group is exactly zero, with a jump before or after."""
    events = []
    for part in (*subject.actions, *subject.states):
        zero_N: Flags = (part.values_ND == 0).all(axis=1)
        if part.values_ND.shape[1] < 2 or part.is_change or not 0 < zero_N.mean() < RARE:
            continue
        edge_K = np.nonzero(np.diff(zero_N, prepend=False, append=False))[0]
        first_K, stop_K = edge_K[::2], edge_K[1::2]
        for channel in (c for c in moving if c.part is part):
            leaves_K = np.append(channel.step_N, 0.0)[stop_K]
            size_K = np.maximum(channel.step_N[first_K], leaves_K)
            least = max(STEP * channel.usual_step(0.99), OF_ZEROS * channel.scale)
            for index in np.nonzero(size_K > least)[0].tolist():
                first, count = int(first_K[index]), int(stop_K[index] - first_K[index])
                frames = f"{count} frames" if count > 1 else "one frame"
                message = f"is exactly 0 for {frames}, with all of {part.group.name!r}"
                share = float(size_K[index]) / channel.scale
                events.append(Event(channel, first, share, message))
    return events
