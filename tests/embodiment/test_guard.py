"""Test that what was never recorded is counted, reported once per episode, and clipped."""

import warnings

import numpy as np
import pytest

from actionprior.embodiment import Embodiment
from actionprior.embodiment.guard import Guard
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import UserError
from tests.helpers.robots import delta_arm, plain_arm, position_arm, tool_arm


def recorded(robot: Embodiment, step: float = 0.1) -> RecordedRanges:
    """All actions and states from -1 to 1."""
    ones, states = np.ones(37, dtype=np.float32), np.ones(74, dtype=np.float32)
    return RecordedRanges(-ones, ones, step * ones, -states, states)


def guard(robot: Embodiment, mode: str = "clip", margin: float = 0.0) -> Guard:
    return Guard(robot, recorded(robot), mode, margin)


def test_actions_beyond_the_limits_are_clipped_and_counted() -> None:
    robot = plain_arm()
    count, checked = len(robot.action_features), guard(robot, margin=0.25)
    inside = np.linspace(-1.4, 1.4, count).astype(np.float32)
    assert np.array_equal(checked.check_action(inside, None), inside)
    beyond = inside * 2
    with pytest.warns(
        RuntimeWarning, match=r"plain: .* of the action is -2\.8, beyond the recorded"
    ):
        found = checked.check_action(beyond, None)
    assert found == pytest.approx(beyond.clip(-1.5, 1.5), abs=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once per episode
        checked.check_action(beyond, None)
    assert checked.counts == {"state": 0, "limit": 2, "step": 0}
    checked.reset()
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        checked.check_action(beyond, None)


def test_larger_steps_than_recorded_are_clipped_from_the_action_before() -> None:
    robot = plain_arm()
    checked, before = guard(robot), np.zeros(len(robot.action_features), dtype=np.float32)
    action = before.copy()
    action[:2] = 0.05, -0.5
    with pytest.warns(RuntimeWarning, match=r"changes by -0\.5 in a step; the largest recorded"):
        found = checked.check_action(action, before)
    assert found[:2] == pytest.approx([0.05, -0.1], abs=1e-4)
    assert not found[2:].any()
    assert checked.counts["step"] == 1
    # Changes per step have no largest step, but limits.
    deltas = guard(delta_arm())
    action = np.full(len(delta_arm().action_features), 0.9, dtype=np.float32)
    before = -action
    before[-1] = action[-1]  # the gripper is no change per step
    assert np.array_equal(deltas.check_action(action, before), action)


def test_warn_changes_nothing_and_off_says_nothing() -> None:
    robot = plain_arm()
    far = np.full(len(robot.action_features), 9.0, dtype=np.float32)
    with pytest.warns(RuntimeWarning, match="beyond the recorded"):
        assert np.array_equal(guard(robot, "warn").check_action(far, None), far)
    off = guard(robot, "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(off.check_action(far, None), far)
        off.check_state(np.full(len(robot.state_features), 99.0, dtype=np.float32))
    assert not any(off.counts.values())


def test_states_far_outside_are_reported_by_name() -> None:
    robot = delta_arm()
    checked, state = guard(robot, "warn"), np.zeros(len(robot.state_features), dtype=np.float32)
    state[1] = 1.9  # less than half of the range beyond its end
    checked.check_state(state)
    assert checked.counts["state"] == 0
    state[1] = 2.1
    with pytest.warns(
        RuntimeWarning, match=rf"{robot.state_features[1]} of the state is 2\.1, far"
    ):
        checked.check_state(state)
    assert checked.counts["state"] == 1


def test_orientations_are_not_compared() -> None:
    robot = tool_arm()
    action = np.zeros(len(robot.action_features), dtype=np.float32)
    rotation = next(g for g, r in robot._with_representation() if r.is_rotation)
    for name in rotation.features:
        action[robot.action_features.index(name)] = 3.0
    found = guard(robot).check_action(action, None)
    assert np.array_equal(found, action)


def test_joints_that_turn_past_their_end_are_not_compared() -> None:
    robot = position_arm()  # its angles are a turn apart from themselves
    action = np.full(len(robot.action_features), 6.0, dtype=np.float32)
    assert np.array_equal(guard(robot).check_action(action, -action), action)


def test_bad_arguments_are_refused() -> None:
    robot = plain_arm()
    with pytest.raises(UserError, match="guard is 'stop'; expected one of off, warn, clip"):
        guard(robot, "stop")
    with pytest.raises(UserError, match=r"guard_margin is -1; expected a number from 0 on"):
        guard(robot, margin=-1)
    with pytest.raises(UserError, match=r"guard is 'clip', but .* records no limits of 'plain'"):
        Guard(robot, None, "clip")
    Guard(robot, None, "warn").check_state(np.zeros(len(robot.state_features), dtype=np.float32))


@pytest.mark.parametrize("mode", ["warn", "clip"])
def test_a_chunk_is_checked_as_step_by_step(mode: str) -> None:
    robot, rng = plain_arm(), np.random.default_rng(0)
    chunk = rng.uniform(-1.5, 1.5, (12, len(robot.action_features))).astype(np.float32)
    for first in (None, np.zeros(chunk.shape[1], dtype=np.float32)):
        single, whole, before, expected = guard(robot, mode), guard(robot, mode), first, []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for action in chunk:
                before = single.check_action(action, before)
                expected.append(before)
            assert np.array_equal(whole.check_actions(chunk, first), expected)
        assert whole.counts == single.counts
        assert whole.counts["limit"] > 0
        assert whole.counts["step"] > 0
        assert whole.check_actions(chunk[:0], first).shape == chunk[:0].shape


def test_a_guard_of_the_same_limits_counts_for_itself() -> None:
    robot, said = plain_arm(), list[str]()
    template = guard(robot, margin=0.25)
    own = template.same_limits(lambda kind, text: said.append(f"{kind}: {text}"))
    far = np.full(len(robot.action_features), 9.0, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert own.check_action(far, None) == pytest.approx(1.5, abs=1e-4)
        own.check_action(far, None)
    assert len(said) == 1
    assert said[0].startswith("limit: plain: ")
    assert (own.counts["limit"], template.counts["limit"]) == (2, 0)
    assert own.same_limits().counts["limit"] == 0
    assert own.compares
    assert not guard(robot, "off").compares


def test_a_warning_points_to_the_code_that_acts() -> None:
    far = np.full(len(plain_arm().action_features), 9.0, dtype=np.float32)
    with pytest.warns(RuntimeWarning, match="beyond the recorded") as found:
        guard(plain_arm()).check_action(far, None)
    assert found[0].filename == __file__
