"""Recorded values as single channels whose steps can be compared, and events in them.

Axes: N frames, C numbers of a channel, K events.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup.advice import EXCLUDE
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import GroupValues, Subject, moves
from actionprior.embodiment.rotations import to_quaternion

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

HABIT, FEWEST = 0.2, 3  # share and number of episodes above which something is usual
TOGETHER = 0.5  # share of the moving channels that gives an event the name of the group


@dataclass(frozen=True)
class Channel:
    """One feature of a moving group, or one orientation.

    Attributes:
        part: Values of the group.
        name: Name of the feature, or of an orientation's group.
        values_NC: The feature's values (N, 1), or unit quaternions (N, 4).
        start_E: First frame of each episode.
    """

    part: GroupValues
    name: str
    values_NC: Doubles
    start_E: Rows

    @property
    def is_change(self) -> bool:
        """True if a value is a change per step, not a place."""
        return self.part.is_change

    def apart(self, first_K: Rows | slice, second_K: Rows | slice) -> Doubles:
        """Distance (K,) between frames, the shorter way round; for orientations the angle."""
        if self.part.representation.is_rotation:
            first_KC, second_KC = self.values_NC[first_K], self.values_NC[second_K]
            chord_K = np.minimum(
                np.linalg.norm(first_KC - second_KC, axis=1),
                np.linalg.norm(first_KC + second_KC, axis=1),
            )
            angle_K: Doubles = 4 * np.arcsin(np.clip(chord_K / 2, 0, 1))
            return angle_K
        way_K = np.abs(self.values_NC[first_K, 0] - self.values_NC[second_K, 0])
        if (period := self.part.representation.period) is not None:
            way_K = np.abs(way_K - period * np.round(way_K / period))
        return way_K

    @cached_property
    def step_N(self) -> Doubles:
        """Distance of each frame from the frame before, 0 at the start of episodes."""
        step_N = np.zeros(len(self.values_NC))
        step_N[1:] = self.apart(slice(1, None), slice(None, -1))
        step_N[self.start_E] = 0.0
        return step_N

    @cached_property
    def scale(self) -> float:
        """1-99 % range of the values."""
        if self.part.representation.is_rotation:
            middle = np.full(len(self.values_NC), len(self.values_NC) // 2)
            return float(np.quantile(self.apart(np.arange(len(middle)), middle), 0.99))
        values_N1 = self.part.representation.around_their_centre(self.values_NC.astype(np.float32))
        return float(np.subtract(*np.quantile(values_N1, [0.99, 0.01])))

    def usual_step(self, share: float) -> float:
        """Return the step that only few of the frames exceed, such as 1 % with ``share`` 0.99."""
        return float(np.quantile(self.step_N, share))


def channels(subject: Subject) -> list[Channel]:
    """List the channels that move, first of the actions, then of the states."""
    found = []
    for part in (*subject.actions, *subject.states):
        values_ND = part.values_ND.astype(np.float64)
        if part.representation.is_rotation:
            turns_N4 = to_quaternion(torch.from_numpy(values_ND), part.group.encoding).numpy()
            found.append(Channel(part, part.group.name, turns_N4, subject.start_E))
            continue
        moves_D = moves(part.values_ND)
        found += [
            Channel(part, feature, values_ND[:, i : i + 1], subject.start_E)
            for i, feature in enumerate(part.group.features)
            if moves_D[i]
        ]
    return [channel for channel in found if channel.scale > 0]


class Event(NamedTuple):
    """Something that happens in one channel.

    Attributes:
        channel: The channel.
        at: Frame in the dataset.
        size: How far it is from what is usual, as a share of the channel's range.
        message: What was found.
    """

    channel: Channel
    at: int
    size: float
    message: str


def report_events(
    subject: Subject, check: str, events: Sequence[Event], moving: Sequence[Channel]
) -> Iterator[Finding]:
    """Create a warning per channel, or per group or vector that has an event as a whole.

    Each warning has the place of its largest event, and the episodes of all. Events that many
    episodes have in a group are a habit of the robot or its recorder, and give one note.
    """
    by_group: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_group[f"{event.channel.part.kind} {event.channel.part.group.name}"].append(event)
    for name, found in by_group.items():
        episodes = _episodes(subject, found)
        if is_habit(subject, len(episodes)):
            worst = max(found, key=lambda event: event.size)
            message = f"{worst.channel.name} {worst.message}, here and in {len(episodes) - 1}"
            message += f" more of {len(subject.lengths_E)} episodes: a habit of this recording"
            yield subject.say("note", check, name, message, at=worst.at)
            known = {id(event) for event in found}
            events = [event for event in events if id(event) not in known]
    for name, found in _named(events, moving).items():
        worst = max(found, key=lambda event: event.size)
        more = f" ({len(found)} such places)" if len(found) > 1 else ""
        which = "" if name.endswith(worst.channel.name) else f"{worst.channel.name} "
        message = which + worst.message + more
        numbers = _episodes(subject, found)
        yield subject.say(
            "warning", check, name, message, at=worst.at, episodes=numbers, advice=EXCLUDE
        )


def is_habit(subject: Subject, episodes: int) -> bool:
    """Check whether so many episodes have something that it is usual."""
    return episodes >= FEWEST and episodes > HABIT * len(subject.lengths_E)


def _episodes(subject: Subject, events: Sequence[Event]) -> list[int]:
    frames = [event.at for event in events]
    numbers: list[int] = np.unique(np.searchsorted(subject.stop_E, frames, side="right")).tolist()
    return numbers


def _named(events: Sequence[Event], moving: Sequence[Channel]) -> dict[str, list[Event]]:
    """Name events after their channel, or after the group or the vector if most of it has them."""
    by_frame: dict[tuple[str, int], list[Event]] = defaultdict(list)
    for event in events:
        by_frame[event.channel.part.kind, event.at].append(event)
    named: dict[str, list[Event]] = defaultdict(list)
    for (kind, _), same in by_frame.items():
        of_kind = [c for c in moving if c.part.kind == kind]
        if len(of_kind) > 2 and len(same) > TOGETHER * len(of_kind):
            named[kind].append(max(same, key=lambda event: event.size))
            continue
        for group in {event.channel.part.group.name for event in same}:
            mine = [event for event in same if event.channel.part.group.name == group]
            members = [c for c in of_kind if c.part.group.name == group]
            if len(members) > 2 and len(mine) > TOGETHER * len(members):
                named[f"{kind} {group}"].append(max(mine, key=lambda event: event.size))
            else:
                for event in mine:
                    named[f"{kind} {event.channel.name}"].append(event)
    return named
