"""Pairs of an action entry and the state entry that follows it, as places over time.

Axes: N frames, D entries of a group, E episodes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup.subject import GroupValues, Subject
from actionprior.embodiment import FloatArray
from actionprior.embodiment.rotations import from_quaternion, relative_vector, to_quaternion

Doubles = npt.NDArray[np.float64]

LINKED = 0.7  # correlation of their motion above which a state entry follows a delta
SPAN = 0.5  # time over which motions are compared [s]


class Followed(NamedTuple):
    """Action entry and the state entry that follows it.

    Attributes:
        group: Name of the action's group.
        action: Name of the action entry.
        state: Name of the state entry.
        channel: Name of the state's feature, or of an orientation's group.
        action_N: Commanded place; of deltas the running sum within each episode.
        state_N: Measured place.
        sums: True if the action is a delta.
        gripper: True if the entry opens and closes a gripper.
    """

    group: str
    action: str
    state: str
    channel: str
    action_N: Doubles
    state_N: Doubles
    sums: bool
    gripper: bool


def followed_entries(subject: Subject) -> list[Followed]:
    """List the action entries that have a state, and the deltas whose motion a state follows."""
    found = []
    for pair in subject.pairs:
        if pair.representation.is_rotation:
            continue
        action_ND, state_ND = (v.astype(np.float64) for v in (pair.action_ND, pair.state_ND))
        if pair.representation.period is not None:
            action_ND = state_ND + pair.representation.apart(pair.action_ND, pair.state_ND)
            turns_ND = _unwrapped(subject, state_ND, pair.representation.period) - state_ND
            action_ND, state_ND = action_ND + turns_ND, state_ND + turns_ND
        found += [
            Followed(
                pair.action.name,
                pair.action.features[i],
                pair.state.features[i],
                pair.state.features[i],
                action_ND[:, i],
                state_ND[:, i],
                False,
                pair.representation.is_gripper,
            )
            for i in range(len(pair.action.features))
        ]
    return found + _deltas(subject)


def _unwrapped(subject: Subject, values_ND: Doubles, period: float) -> Doubles:
    parts = [
        np.unwrap(values_ND[start:stop], axis=0, period=period)
        for start, stop in zip(subject.start_E, subject.stop_E, strict=True)
    ]
    return np.concatenate(parts)


def _deltas(subject: Subject) -> list[Followed]:
    """Link each delta to the state entry whose motion is most like it, over all episodes."""
    changes = [part for part in subject.actions if part.is_change]
    span = max(2, round(SPAN * subject.robot.control_hz))
    inside_N = np.repeat(subject.stop_E, subject.lengths_E) - np.arange(len(subject.action_ND))
    first_K = np.nonzero(inside_N > span)[0][:: max(1, span // 2)]
    if not changes or len(first_K) < 10:
        return []
    places = [place for part in subject.states for place in _places(subject, part)]
    parts = np.split(np.arange(len(first_K)), np.searchsorted(first_K, subject.stop_E[:-1]))
    moves_PK = np.array([values_N[first_K + span] - values_N[first_K] for _, _, values_N in places])
    found, taken = [], set[int]()
    for part in changes:
        for entry, feature in enumerate(part.group.features):
            action_N = _running_sum(subject, part.values_ND[:, entry])
            move_K = action_N[first_K + span] - action_N[first_K]
            fits = [_fit(moves_PK[:, k], move_K[k]) for k in parts if len(k) and np.ptp(move_K[k])]
            if not fits or not places:
                continue
            likeness_P, gain_P = (np.median(values, axis=0) for values in zip(*fits, strict=True))
            likeness_P[list(taken)] = 0
            best = int(likeness_P.argmax())
            if likeness_P[best] < LINKED:
                continue
            taken.add(best)
            name, channel, state_N = places[best]
            gain = float(gain_P[best])
            found.append(
                Followed(
                    part.group.name, feature, name, channel, gain * action_N, state_N, True, False
                )
            )
    return found


def _places(subject: Subject, part: GroupValues) -> list[tuple[str, str, Doubles]]:
    """List names, channels and values of a state group's entries.

    Those of an orientation are running sums of its turns about the axes of the world, then of the
    tool.
    """
    group, values_ND = part.group, part.values_ND.astype(np.float64)
    if not part.representation.is_rotation:
        return [(feature, feature, values_ND[:, i]) for i, feature in enumerate(group.features)]
    quaternion_N4 = to_quaternion(torch.from_numpy(values_ND), group.encoding)
    turn_N3 = from_quaternion(quaternion_N4, "axis_angle")
    before_N3 = torch.cat([turn_N3[:1], turn_N3[:-1]])
    places = []
    for frame, step_N3 in (
        ("world", relative_vector(-before_N3, -turn_N3).numpy()),
        ("tool", relative_vector(turn_N3, before_N3).numpy()),
    ):
        # A running sum has the steps before each frame, so each step goes to the frame before.
        step_N3 = np.concatenate([step_N3[1:], step_N3[:1] * 0])
        step_N3[subject.stop_E - 1] = 0
        places += [
            (
                f"{group.name} about {axis} of the {frame}",
                group.name,
                _running_sum(subject, step_N3[:, i]),
            )
            for i, axis in enumerate("xyz")
        ]
    return places


def _running_sum(subject: Subject, values_N: FloatArray | Doubles) -> Doubles:
    """Sum the values before each frame of its episode."""
    sum_N = np.concatenate([[0.0], np.cumsum(values_N, dtype=np.float64)[:-1]])
    since_N: Doubles = sum_N - np.repeat(sum_N[subject.start_E], subject.lengths_E)
    return since_N


def _fit(moves_PK: Doubles, move_K: Doubles) -> tuple[Doubles, Doubles]:
    """Return the correlation of a motion with others (P,), and the factors from it to them."""
    centred_PK = moves_PK - moves_PK.mean(axis=1, keepdims=True)
    centred_K = move_K - move_K.mean()
    product_P = centred_PK @ centred_K
    size_P = np.sqrt((centred_PK**2).sum(axis=1) * (centred_K @ centred_K))
    return product_P / np.maximum(size_P, 1e-30), product_P / (centred_K @ centred_K)
