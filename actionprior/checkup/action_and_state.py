"""Check that actions are commands, and not the state or a record of past motion.

Axes: N frames, D features of a group.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from actionprior.checkup.advice import EXCLUDE, RECORD, on_robot
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import ActionWithState, Subject, moves
from actionprior.embodiment import FloatArray

MOSTLY = 0.99  # share of frames that counts as all of them
JUMP = 0.2  # distance that counts as a jump, as a share of the widest 1-99 % range in a group


def check_action_and_state(subject: Subject) -> Iterator[Finding]:
    """Find actions that equal the state or the next state, lag behind it, or start far from it."""
    inside_N = np.ones(len(subject.action_ND), dtype=np.bool_)
    inside_N[subject.stop_E - 1] = False  # no next frame in the episode
    for pair in subject.pairs:
        if not moves(pair.state_ND).any():
            continue
        tolerance = 1e-5 * float(np.ptp(pair.state_ND))
        same = _distance(pair, lag=0).max(axis=1) <= tolerance
        after = _distance(pair, lag=1).max(axis=1) <= tolerance
        if same.mean() > MOSTLY:
            yield subject.say(
                "error",
                "action_is_state",
                pair.action.name,
                f"action equals state {pair.state.name!r} of the same frame in "
                f"{same.mean():.0%} of frames: a policy trained on it would stand still",
                advice=_other_vector(subject),
            )
        elif after[inside_N[:-1]].mean() > MOSTLY:
            yield subject.say(
                "note",
                "action_is_next_state",
                pair.action.name,
                "action equals the next frame's state: the position that was reached, not the "
                "one that was commanded",
            )
        elif pair.action.relative_to:
            yield from _lag(subject, pair)
            yield from _start(subject, pair)


def _start(subject: Subject, pair: ActionWithState) -> Iterator[Finding]:
    """Find episodes whose first action is further from the state than later actions are."""
    apart_ND = _distance(pair, lag=0)
    state_ND = pair.representation.around_their_centre(pair.state_ND)
    spread = float(np.subtract(*np.quantile(state_ND, [0.99, 0.01], axis=0)).max())
    usual_D = np.maximum(np.quantile(apart_ND, 0.99, axis=0), JUMP * spread)
    far_ED = apart_ND[subject.start_E] > usual_D
    if not far_ED.any():
        return
    episodes = np.nonzero(far_ED.any(axis=1))[0]
    first = int(subject.start_E[episodes[0]])
    entry = int(apart_ND[first].argmax())
    yield subject.say(
        "warning",
        "start",
        f"action {pair.action.features[entry]}",
        f"starts {apart_ND[first, entry]:.3g} away from the state, "
        f"{apart_ND[first, entry] / spread:.0%} of the widest range in {pair.action.name!r}: the "
        "robot jumps there",
        at=first,
        episodes=episodes.tolist(),
        advice=EXCLUDE,
    )


def _other_vector(subject: Subject) -> str:
    """Name another vector of the dataset as the action, if there is one."""
    others = subject.contents.other_actions
    named = " or ".join(on_robot(action_key=key) for key in others)
    return f"if these are the commands: {named}" if others else RECORD


def _lag(subject: Subject, pair: ActionWithState) -> Iterator[Finding]:
    """Report the lag of the state behind the action, at which their mean distance is smallest."""
    steps = range(-5, 11)
    apart = [_mean_distance(pair, lag) for lag in steps]
    best = steps[int(np.argmin(apart))]
    seconds = best / subject.robot.control_hz
    if best < 0:
        yield subject.say(
            "warning",
            "action_lags_state",
            pair.action.name,
            f"action fits best the state {-best} steps ({-seconds:.2f} s) earlier: it is a record "
            "of past motion and not a command",
            advice=_other_vector(subject),
        )
    else:
        least = "at least" if best == steps[-1] else "about"
        yield subject.say(
            "note",
            "lag",
            pair.action.name,
            f"the state follows the action by {least} {best} steps ({seconds:.2f} s)",
        )


def _distance(pair: ActionWithState, lag: int) -> FloatArray:
    """Compute |action[t] - state[t + lag]| for all t that have both, across episodes' ends too."""
    count, first = len(pair.action_ND) - abs(lag), max(0, -lag)
    action_ND = pair.action_ND[first : first + count]
    state_ND = pair.state_ND[first + lag : first + lag + count]
    return np.abs(pair.representation.apart(action_ND, state_ND))


def _mean_distance(pair: ActionWithState, lag: int) -> float:
    """Compute the mean distance of action[t] from state[t + lag]; infinite if no t has both."""
    if len(pair.action_ND) <= abs(lag):
        return float("inf")
    apart: npt.NDArray[np.float64] = _distance(pair, lag).mean(axis=1, dtype=np.float64)
    return float(apart.mean())
