"""Check per episode how each state entry follows its action: lag, sign, offset, order.

What is usual comes from the other episodes. Axes: E episodes, F followed entries, K lags.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.checkup.advice import EXCLUDE, RECORD, exchange
from actionprior.checkup.channels import is_habit
from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.followed import Doubles, Followed, followed_entries
from actionprior.checkup.subject import Subject

EARLIEST, LATEST = 0.3, 0.6  # lags that are tried, action after state and before it [s]
SPAN = 0.5  # time over which the motion of deltas is compared [s]
LEAST_FRAMES, LEAST_EPISODES = 10, 3
MOVES = 0.1  # motion of an episode that can be compared, as a share of the entry's 1-99 % range
SIMILAR = 0.6  # correlation above which entries move together
STEADY = 0.4  # usual difference from the usual lag, as a share of what is reported
LATER, LATER_STEPS = 0.1, 3  # difference from the usual lag that is reported [s] and [steps]
POOR = 3.0  # error of an episode that is looked into, as a multiple of the usual one
POOR_SHARE = 0.03  # and as a share of the entry's range
CLEARLY = 0.5  # share of the error that another lag, or exchanged entries, must leave
FEW = 0.1  # smallest range that counts, as a share of what a few episodes reach
OFFSET = 0.05  # offset that is reported, as a share of the entry's 1-99 % range
CONSTANT = 3.0  # and as a multiple of how much the difference varies within the episode
NEAR = 0.1  # distance of episodes in the same place, as a share of the range
UNUSUAL = 6.0  # offset that is reported, as a multiple of the usual deviation

Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class _Episodes(NamedTuple):
    """Actions and states of each episode, as places; deltas as motions over ``SPAN``."""

    entries: list[Followed]
    action_TF: list[Doubles]
    state_TF: list[Doubles]
    scale_F: Doubles  # 1-99 % range of the state, less if only a few episodes reach that far
    range_F: Doubles  # 1-99 % range of the state
    moves_EF: Flags


class _Fits(NamedTuple):
    """How states follow actions."""

    usual_F: Integers  # lag [steps]
    lag_EF: Integers  # lag with the smallest error [steps]
    least_EF: Doubles  # that error
    error_EF: Doubles  # standard deviation of the difference at the usual lag
    usual_error_F: Doubles
    likeness_EF: Doubles  # correlation at the usual lag
    offset_EF: Doubles  # median of action minus state at the usual lag


def check_following(subject: Subject) -> Iterator[Finding]:
    """Find episodes in which a state follows its action unlike in the other episodes."""
    entries = followed_entries(subject)
    if not entries or _long_enough(subject).sum() < LEAST_EPISODES:
        return
    episodes = _episodes(subject, entries)
    fits = _fit(subject, episodes)
    explained_EF = np.zeros(episodes.moves_EF.shape, dtype=np.bool_)
    yield from _exchanged(subject, episodes, fits, explained_EF)
    yield from _signs(subject, episodes, fits, explained_EF)
    yield from _lags(subject, episodes, fits, explained_EF)
    yield from _offsets(subject, episodes, fits, explained_EF)


def _lags_tried(subject: Subject) -> range:
    hz = subject.robot.control_hz
    return range(-max(5, round(EARLIEST * hz)), max(10, round(LATEST * hz)) + 1)


def _long_enough(subject: Subject) -> Flags:
    long_E: Flags = subject.lengths_E >= LEAST_FRAMES + 2 * len(_lags_tried(subject))
    return long_E


def _episodes(subject: Subject, entries: list[Followed]) -> _Episodes:
    action_TF = _places(subject, entries, [e.action_N for e in entries])
    state_TF = _places(subject, entries, [e.state_N for e in entries])
    commanded_F, scale_F = _scale(action_TF), _scale(state_TF)
    moves_EF = np.stack(
        [
            (np.ptp(s_TF, axis=0) > MOVES * scale_F) & (np.ptp(a_TF, axis=0) > MOVES * commanded_F)
            for a_TF, s_TF in zip(action_TF, state_TF, strict=True)
        ]
    )
    range_F = np.maximum(_range(state_TF), 1e-12)
    return _Episodes(entries, action_TF, state_TF, np.maximum(scale_F, 1e-12), range_F, moves_EF)


def _places(subject: Subject, entries: list[Followed], values_FN: list[Doubles]) -> list[Doubles]:
    """Split values by episode, each (T, F); of deltas the motion over ``SPAN``."""
    sums_F = np.array([e.sums for e in entries])
    span = max(2, round(SPAN * subject.robot.control_hz))
    all_NF, parts = np.stack(values_FN, axis=1), []
    for start, stop in zip(subject.start_E, subject.stop_E, strict=True):
        places_TF = all_NF[start:stop]
        later_T = np.minimum(np.arange(len(places_TF)) + span, len(places_TF) - 1)
        parts.append(np.where(sums_F, places_TF[later_T] - places_TF, places_TF))
    return parts


def _range(parts: list[Doubles]) -> Doubles:
    range_F: Doubles = np.subtract(*np.quantile(np.concatenate(parts), [0.99, 0.01], axis=0))
    return range_F


def _scale(parts: list[Doubles]) -> Doubles:
    """Return the 1-99 % range (F,), less if only a few episodes reach that far."""
    range_F = _range(parts)
    usual_F = np.median([np.ptp(part, axis=0) for part in parts], axis=0)
    scale_F: Doubles = np.clip(3 * usual_F, FEW * range_F, range_F)
    return scale_F


def _fit(subject: Subject, episodes: _Episodes) -> _Fits:
    lags, shape = _lags_tried(subject), episodes.moves_EF.shape
    long_E, first = _long_enough(subject), lags[0]
    episodes.moves_EF[~long_E] = False
    error_EKF = np.full((shape[0], len(lags), shape[1]), np.nan)
    for e in np.nonzero(long_E)[0]:
        for k, lag in enumerate(lags):
            error_EKF[e, k] = _apart(episodes.action_TF[e], episodes.state_TF[e], lag).std(axis=0)
    best_EF = np.where(np.isnan(error_EKF), np.inf, error_EKF).argmin(axis=1) + first
    usual_F = _median_where(best_EF, episodes.moves_EF).round().astype(np.int64)
    likeness_EF, offset_EF = np.zeros(shape), np.full(shape, np.nan)
    for e in np.nonzero(long_E)[0]:
        for f in range(shape[1]):
            a_T, s_T = _aligned(episodes.action_TF[e][:, f], episodes.state_TF[e][:, f], usual_F[f])
            offset_EF[e, f] = np.median(a_T - s_T)
            if episodes.moves_EF[e, f]:
                likeness_EF[e, f] = np.corrcoef(a_T, s_T)[0, 1]
    error_EF = np.take_along_axis(error_EKF, (usual_F - first)[None, None, :], axis=1)[:, 0]
    often_F = episodes.moves_EF.sum(axis=0) >= LEAST_EPISODES
    usual_error_F = _median_where(error_EF, np.where(often_F, episodes.moves_EF, long_E[:, None]))
    least_EF = np.where(np.isnan(error_EKF), np.inf, error_EKF).min(axis=1)
    return _Fits(usual_F, best_EF, least_EF, error_EF, usual_error_F, likeness_EF, offset_EF)


def _aligned(action_T: Doubles, state_T: Doubles, lag: int) -> tuple[Doubles, Doubles]:
    """Pair action[t] with state[t + lag]."""
    count, first = len(action_T) - abs(lag), max(0, -lag)
    return action_T[first : first + count], state_T[first + lag : first + lag + count]


def _apart(action_TF: Doubles, state_TF: Doubles, lag: int) -> Doubles:
    a_TF, s_TF = _aligned(action_TF, state_TF, lag)
    return a_TF - s_TF


def _poor(episodes: _Episodes, fits: _Fits) -> Flags:
    """Find the entries whose state follows much worse than usual."""
    least_F = np.maximum(POOR * fits.usual_error_F, POOR_SHARE * episodes.scale_F)
    poor: Flags = fits.error_EF > least_F
    return poor


def _exchanged(
    subject: Subject, episodes: _Episodes, fits: _Fits, explained_EF: Flags
) -> Iterator[Finding]:
    """Find pairs of entries whose states follow the other's action, in an episode or in all."""
    entries, poor_EF = episodes.entries, _poor(episodes, fits)
    likeness_F = _median_where(fits.likeness_EF, episodes.moves_EF)
    always_F = (likeness_F < SIMILAR) & (episodes.moves_EF.sum(axis=0) >= LEAST_EPISODES)
    found: dict[tuple[int, int], list[int]] = {}
    for e in range(len(poor_EF)):
        suspects = np.nonzero(poor_EF[e] | (always_F & episodes.moves_EF[e]))[0].tolist()
        pairs = [
            (cost, i, j)
            for i, j in combinations(suspects, 2)
            if entries[i].sums == entries[j].sums and not (entries[i].gripper or entries[j].gripper)
            if (cost := _exchange_cost(episodes, fits, e, i, j)) < CLEARLY
        ]
        for _, i, j in sorted(pairs):
            if not explained_EF[e, [i, j]].any():
                explained_EF[e, [i, j]] = True
                found.setdefault((i, j), []).append(e)
    for (i, j), numbers in found.items():
        a, b = entries[i], entries[j]
        always = len(numbers) > 0.5 * int(episodes.moves_EF[:, [i, j]].all(axis=1).sum())
        yield subject.say(
            "error",
            "swapped",
            f"action {a.action}",
            f"and {b.action!r} seem to be exchanged in the action or in the state: state "
            f"{a.state!r} follows action {b.action!r}, and {b.state!r} follows {a.action!r}",
            episode=-1 if always else numbers[0],
            episodes=() if always else numbers,
            advice=_names_exchanged(subject, a.action, b.action) if always else EXCLUDE,
        )


def _names_exchanged(subject: Subject, first: str, second: str) -> str:
    lines = exchange(subject.robot, first, second)
    return f"if the action has the wrong names: {lines}" if lines else RECORD


def _exchange_cost(episodes: _Episodes, fits: _Fits, e: int, i: int, j: int) -> float:
    """Return the error with two entries exchanged, as a share of the error as recorded."""
    a_TF, s_TF = episodes.action_TF[e], episodes.state_TF[e]
    scale_F = episodes.scale_F
    crossed = sum(
        float(np.std(_apart(a_TF[:, f], s_TF[:, g], int(fits.usual_F[g]))) / scale_F[g])
        for f, g in ((i, j), (j, i))
    )
    straight = float((fits.error_EF[e] / scale_F)[[i, j]].sum())
    return crossed / straight if straight > 0 else np.inf


def _signs(
    subject: Subject, episodes: _Episodes, fits: _Fits, explained_EF: Flags
) -> Iterator[Finding]:
    usual_F = _median_where(fits.likeness_EF, episodes.moves_EF)
    often_F = episodes.moves_EF.sum(axis=0) >= LEAST_EPISODES
    against_EF = episodes.moves_EF & (fits.likeness_EF < -SIMILAR) & often_F & ~explained_EF
    for f, entry in enumerate(episodes.entries):
        if usual_F[f] < -SIMILAR and often_F[f] and not entry.gripper:
            yield subject.say(
                "error",
                "sign",
                f"action {entry.action}",
                f"moves against state {entry.state!r} in all episodes (correlation "
                f"{usual_F[f]:.2f}): one of them has the wrong sign",
                advice=RECORD,
            )
        elif usual_F[f] > SIMILAR and against_EF[:, f].any():
            numbers = np.nonzero(against_EF[:, f])[0]
            explained_EF[numbers, f] = True
            yield subject.say(
                "error",
                "sign",
                f"action {entry.action}",
                f"moves against state {entry.state!r} (correlation "
                f"{fits.likeness_EF[numbers[0], f]:.2f}, in other episodes {usual_F[f]:.2f}): one "
                "of them has the wrong sign there",
                episode=int(numbers[0]),
                episodes=numbers.tolist(),
                advice=EXCLUDE,
            )


def _lags(
    subject: Subject, episodes: _Episodes, fits: _Fits, explained_EF: Flags
) -> Iterator[Finding]:
    hz = subject.robot.control_hz
    later_EF = np.abs(fits.lag_EF - fits.usual_F) >= max(LATER_STEPS, LATER * hz)
    clear_EF = fits.least_EF < CLEARLY * fits.error_EF
    late_EF = later_EF & clear_EF & episodes.moves_EF & _poor(episodes, fits) & ~explained_EF
    late_EF &= np.array([not e.gripper for e in episodes.entries])
    # Where the lag differs from episode to episode, none of them is unusual.
    apart_EF = np.abs(fits.lag_EF - fits.usual_F)
    late_EF &= _median_where(apart_EF, episodes.moves_EF) <= STEADY * max(LATER_STEPS, LATER * hz)
    late_EF &= episodes.moves_EF.sum(axis=0) >= LEAST_EPISODES
    explained_EF |= late_EF
    for name, f, numbers in _by_group(episodes, late_EF):
        e = numbers[0]
        level: Level = "note" if is_habit(subject, len(numbers)) else "warning"
        yield subject.say(
            level,
            "episode_lag",
            f"action {name}",
            f"the state follows after {fits.lag_EF[e, f]} steps ({fits.lag_EF[e, f] / hz:.2f} s), "
            f"in other episodes after {fits.usual_F[f]} ({fits.usual_F[f] / hz:.2f} s)",
            episode=e,
            episodes=numbers,
            advice=EXCLUDE if level == "warning" else "",
        )


def _offsets(
    subject: Subject, episodes: _Episodes, fits: _Fits, explained_EF: Flags
) -> Iterator[Finding]:
    usual_F = np.nanmedian(fits.offset_EF, axis=0)
    away_EF = np.abs(fits.offset_EF - usual_F)
    usually_F = 1.4826 * np.nanmedian(away_EF, axis=0)
    off_EF = away_EF > np.maximum(UNUSUAL * usually_F, OFFSET * episodes.range_F)
    off_EF &= away_EF > CONSTANT * fits.error_EF
    off_EF &= ~explained_EF & np.array([not e.gripper for e in episodes.entries])
    off_EF &= _in_usual_places(episodes, off_EF)
    for name, f, numbers in _by_group(episodes, off_EF):
        e, entry = numbers[0], episodes.entries[f]
        per = f" per {SPAN:g} s" if entry.sums else ""
        level: Level = "note" if is_habit(subject, len(numbers)) else "warning"
        yield subject.say(
            level,
            "offset",
            f"action {name}",
            f"is {fits.offset_EF[e, f]:.3g}{per} away from state {entry.state!r} throughout the "
            f"episode, in other episodes {usual_F[f]:.3g}: one of them is shifted, by "
            f"{away_EF[e, f] / episodes.range_F[f]:.0%} of its range",
            episode=e,
            episodes=numbers,
            advice=EXCLUDE if level == "warning" else "",
        )


def _in_usual_places(episodes: _Episodes, off_EF: Flags) -> Flags:
    """Keep flags of episodes whose action or state is where it is in others, too.

    An arm that is lifted in a few episodes hangs lower than its command only in those.
    """
    usual_EF = np.zeros(off_EF.shape, dtype=np.bool_)
    for parts in (episodes.action_TF, episodes.state_TF):
        place_EF = np.stack([np.median(part, axis=0) for part in parts])
        for e, f in zip(*np.nonzero(off_EF), strict=True):
            near_E = np.abs(place_EF[:, f] - place_EF[e, f]) < NEAR * episodes.range_F[f]
            usual_EF[e, f] |= (near_E & ~off_EF[:, f]).sum() >= LEAST_EPISODES
    return usual_EF


def _by_group(episodes: _Episodes, flags_EF: Flags) -> Iterator[tuple[str, int, list[int]]]:
    """Yield a name, an entry and episodes: of the whole group if most of it is flagged."""
    groups = list(dict.fromkeys(e.group for e in episodes.entries))
    for group in groups:
        members = np.array([f for f, e in enumerate(episodes.entries) if e.group == group])
        moving_E = np.maximum(episodes.moves_EF[:, members].sum(axis=1), 2)
        most_E = flags_EF[:, members].sum(axis=1) > 0.5 * moving_E
        if len(members) > 2 and most_E.any():
            numbers = np.nonzero(most_E)[0].tolist()
            yield group, int(members[flags_EF[numbers[0], members].argmax()]), numbers
            flags_EF = flags_EF & ~most_E[:, None]
        for f in members.tolist():
            if flags_EF[:, f].any():
                yield episodes.entries[f].action, f, np.nonzero(flags_EF[:, f])[0].tolist()


def _median_where(values_EF: Doubles | Integers, flags_EF: Flags) -> Doubles:
    """Median of each column where flagged, 0 where nothing is."""
    return np.array(
        [
            np.median(v_E[f_E]) if f_E.any() else 0.0
            for v_E, f_E in zip(values_EF.T, flags_EF.T, strict=True)
        ]
    )
