"""A state that follows its action unlike in the other episodes is named with its place."""

import numpy as np
import pytest

from actionprior.checkup import Finding, Subject
from actionprior.checkup.following import check_following
from actionprior.data import Contents
from actionprior.data.store import Recording
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

NAMES = ["a", "b", "c"]
LENGTH, EPISODES, LAG = 150, 6, 3


def arm(representation: str) -> Embodiment:
    relative = {"relative_to": "arm"} if representation == "joint_position" else {}
    return Embodiment(
        "arm",
        20,
        [ActionGroup("arm", "joints", NAMES, representation, "rad", **relative)],
        [StateGroup("arm", "joints", NAMES, "position", "rad")],
    )


def motion(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places (E, T, 3) that are commanded, and those that are reached ``LAG`` steps later."""
    rng = np.random.default_rng(seed)
    t = np.arange(LENGTH + LAG)[:, None] / 20
    rate, phase = rng.uniform(0.6, 2, (EPISODES, 1, 3)), rng.uniform(0, 6, (EPISODES, 1, 3))
    path = np.sin(t * rate + phase) * [1.0, 0.5, 0.8] + [0.0, 0.5, -0.3]
    return path[:, LAG:].copy(), path[:, :LENGTH] + rng.normal(0, 0.002, (EPISODES, LENGTH, 3))


def found(action: np.ndarray, state: np.ndarray, kind: str = "joint_position") -> list[Finding]:
    recording = Recording(
        action.reshape(-1, 3).astype(np.float32),
        state.reshape(-1, 3).astype(np.float32),
        np.full(EPISODES, LENGTH),
    )
    return list(check_following(Subject(arm(kind), "data", Contents(recording), 15)))


def deltas(places: np.ndarray) -> np.ndarray:
    return np.diff(places, axis=1, append=places[:, -1:])


@pytest.mark.parametrize("seed", range(5))
def test_clean_recordings_give_nothing(seed: int) -> None:
    action, state = motion(seed)
    assert found(action, state) == []
    assert found(deltas(action), state, "joint_delta") == []


@pytest.mark.parametrize("kind", ["joint_position", "joint_delta"])
def test_a_changed_sign_is_an_error(kind: str) -> None:
    action, state = motion()
    action = action if kind == "joint_position" else deltas(action)
    action[4, :, 1] *= -1
    (finding,) = found(action, state, kind)
    assert (finding.level, finding.check, finding.feature) == ("error", "sign", "action b")
    assert (finding.episode, finding.episodes) == (4, (4,))


def test_a_sign_that_is_wrong_in_all_episodes_is_an_error_without_a_list() -> None:
    action, state = motion()
    state[..., 2] *= -1
    (finding,) = found(action, state)
    assert (finding.check, finding.feature, finding.episode) == ("sign", "action c", -1)
    assert finding.episodes == ()


@pytest.mark.parametrize("kind", ["joint_position", "joint_delta"])
def test_exchanged_entries_are_named(kind: str) -> None:
    action, state = motion()
    action = action if kind == "joint_position" else deltas(action)
    action[1] = action[1][:, [0, 2, 1]]
    (finding,) = found(action, state, kind)
    assert (finding.check, finding.feature, finding.episode) == ("swapped", "action b", 1)
    assert "and 'c' seem to be exchanged" in finding.message


def test_columns_that_are_exchanged_in_all_episodes_are_named() -> None:
    action, state = motion()
    (finding,) = found(action[..., [1, 0, 2]], state)
    assert (finding.check, finding.feature, finding.episode) == ("swapped", "action a", -1)
    assert "in the action or in the state" in finding.message


@pytest.mark.parametrize("kind", ["joint_position", "joint_delta"])
def test_a_lag_is_given_in_steps(kind: str) -> None:
    action, state = motion()
    action = action if kind == "joint_position" else deltas(action)
    state[2, 6:, 0] = state[2, :-6, 0].copy()
    (finding,) = found(action, state, kind)
    assert (finding.check, finding.feature, finding.episode) == ("episode_lag", "action a", 2)
    assert "the state follows after 9 steps (0.45 s), in other episodes after 3" in finding.message


def test_a_lag_of_all_entries_is_one_finding() -> None:
    action, state = motion()
    state[2, 6:] = state[2, :-6].copy()
    (finding,) = found(action, state)
    assert (finding.check, finding.feature, finding.episode) == ("episode_lag", "action arm", 2)


def test_offsets_are_counted_by_episode() -> None:
    action, state = motion()
    state[[0, 3], :, 1] += 0.2
    (finding,) = found(action, state)
    assert (finding.level, finding.check, finding.feature) == ("warning", "offset", "action b")
    assert finding.episodes == (0, 3)
    assert "(2 such episodes)" in finding.message


def test_an_offset_of_deltas_is_found() -> None:
    action, state = motion()
    action = deltas(action)
    action[5, :, 2] += 0.02
    (finding,) = found(action, state, "joint_delta")
    assert (finding.check, finding.feature, finding.episode) == ("offset", "action c", 5)
    assert "per 0.5 s" in finding.message


def test_too_few_or_too_short_episodes_are_not_compared() -> None:
    action, state = motion()
    recording = Recording(
        action[0, :40].astype(np.float32), state[0, :40].astype(np.float32), np.full(4, 10)
    )
    subject = Subject(arm("joint_position"), "data", Contents(recording), 15)
    assert list(check_following(subject)) == []
