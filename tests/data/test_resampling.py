"""Resampled trajectories: which values stay exact, and how each representation moves."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from actionprior.data.resampling import resample, unbroken_parts
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup, rotations

ROTATION = "quaternion_wxyz"


def robot(control_hz: float) -> Embodiment:
    """Position, continuous joint, orientation, delta and gripper, one of each."""
    turn = ["qw", "qx", "qy", "qz"]
    return Embodiment(
        name="all",
        control_hz=control_hz,
        action=[
            ActionGroup("slide", "joints", ["s"], "joint_position", "m", 0, "slide"),
            ActionGroup("wheel", "joints", ["w"], "joint_position", "rad", 1, "wheel"),
            ActionGroup(
                "turn", "right_arm", turn, "end_effector_rotation", "rad", 0, "turn", ROTATION
            ),
            ActionGroup("step", "joints", ["d"], "joint_delta", "rad", 2),
            ActionGroup("grip", "joints", ["g"], "gripper", "", 7),
        ],
        state=[
            StateGroup("slide", "joints", ["s"], "position", "m"),
            StateGroup("wheel", "body", ["w"], "angle_sincos", "rad"),
            StateGroup("turn", "body", turn, "rotation_6d", "rad", 2, ROTATION),
            StateGroup("grip", "joints", ["g"], "gripper", "", 7),
        ],
    )


SLIDE, WHEEL, TURN, STEP, GRIP = 0, 1, slice(2, 6), 6, 7


def episode(frames: int, hz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Constant speeds, the wheel through ±π, and a gripper that shuts halfway."""
    time = np.arange(frames) / hz
    wheel = (3.0 + 0.5 * time + np.pi) % (2 * np.pi) - np.pi
    vectors = torch.from_numpy(np.outer(time, [0.3, -0.2, 0.5]))
    turn = rotations.from_quaternion(rotations.to_quaternion(vectors, "axis_angle"), ROTATION)
    grip = (time > time[-1] / 2).astype(float)
    deltas = np.full(frames, 0.8 / hz)
    action = np.column_stack([2 * time, wheel, turn, deltas, grip]).astype(np.float32)
    state = np.column_stack([2 * time, wheel, turn, grip]).astype(np.float32)
    return action, state, time


@pytest.mark.parametrize(("source_hz", "control_hz"), [(30, 10), (10, 30), (18.5, 20), (60, 7)])
def test_constant_speeds_stay_the_same(source_hz: float, control_hz: float) -> None:
    action, state, time = episode(61, source_hz)
    new = resample(robot(control_hz), action, state, time)
    expected, _, expected_time = episode(len(new.time_M), control_hz)
    np.testing.assert_allclose(new.time_M, expected_time)
    assert time[-1] - 2 / control_hz < new.time_M[-1] <= time[-1] + 1e-9
    for column in (SLIDE, WHEEL, STEP):
        np.testing.assert_allclose(new.action_MA[:, column], expected[:, column], atol=2e-6)
    np.testing.assert_allclose(new.action_MA[:, TURN], expected[:, TURN], atol=2e-6)
    np.testing.assert_array_equal(new.state_MS[:, :6], new.action_MA[:, :6])
    assert set(new.action_MA[:, GRIP]) == {0.0, 1.0}  # never half shut


def test_there_and_back_is_the_same_to_the_bit_where_times_agree() -> None:
    action, state, time = episode(20, 10)
    action[:, SLIDE] = np.random.default_rng(0).normal(size=20)
    finer = resample(robot(40), action, state, time)
    back = resample(robot(10), finer.action_MA, finer.state_MS, finer.time_M)
    kept = len(back.time_M)
    assert kept >= 19
    values = [c for c in range(8) if c != STEP]
    np.testing.assert_array_equal(back.action_MA[:, values], action[:kept, values])
    np.testing.assert_array_equal(back.state_MS, state[:kept])
    np.testing.assert_allclose(back.action_MA[:, STEP], action[:kept, STEP], rtol=1e-6)


def test_the_same_rate_changes_nothing() -> None:
    action, state, time = episode(12, 10)
    new = resample(robot(10), action, state, time)
    np.testing.assert_allclose(new.action_MA, action, rtol=1e-6)
    np.testing.assert_array_equal(new.state_MS, state)
    np.testing.assert_array_equal(new.frame_M, np.arange(12))


def test_deltas_keep_their_sums_at_every_common_time() -> None:
    action, state, time = episode(31, 30)
    action[:, STEP] = np.random.default_rng(0).normal(size=31)
    new = resample(robot(10), action, state, time)
    np.testing.assert_allclose(
        new.action_MA[:, STEP], action[:30, STEP].reshape(10, 3).sum(1), rtol=1e-5
    )


def test_images_are_the_last_ones_seen() -> None:
    action, state, time = episode(7, 10)
    new = resample(robot(4), action, state, time)  # the delta from 0.5 to 0.75 s is not known
    np.testing.assert_array_equal(new.frame_M, [0, 2])
    positions = robot(4)
    positions.action = positions.action[:1]
    new = resample(positions, action[:, :1], state, time)
    np.testing.assert_array_equal(new.frame_M, [0, 2, 5])
    np.testing.assert_allclose(new.action_MA[:, 0], [0, 0.5, 1.0], rtol=1e-6)


def test_uneven_timestamps_are_used() -> None:
    action, state, _ = episode(4, 10)
    time = np.array([0.0, 0.1, 0.5, 0.6])
    action[:, SLIDE] = [0, 1, 5, 6]
    new = resample(robot(10), action, state, time)
    np.testing.assert_allclose(new.action_MA[:, SLIDE], np.arange(7), atol=1e-6)


def test_a_single_frame_stays_one() -> None:
    action, state, time = episode(1, 10)
    for rate in (5, 10, 60):
        assert len(resample(robot(rate), action, state, time).time_M) == 1


def test_time_that_does_not_increase_is_refused() -> None:
    action, state, time = episode(5, 10)
    time[3] = time[2]
    with pytest.raises(ValueError, match="does not increase after frame 2"):
        resample(robot(5), action, state, time)


def test_gaps_have_a_limit() -> None:
    action, state, time = episode(60, 30)
    time[30:] += 50_000
    with pytest.raises(ValueError, match=r"gap of 5e\+04 s after frame 29, and max_gap is 2 s"):
        resample(robot(30), action, state, time)
    time[30:] -= 50_000 - 1.5
    assert len(resample(robot(30), action, state, time).time_M) == 60 + 45
    with pytest.raises(ValueError, match="max_gap is 1 s"):
        resample(robot(30), action, state, time, max_gap=1)


def test_an_episode_is_split_at_gaps() -> None:
    _, _, time = episode(60, 30)
    assert unbroken_parts(time) == [slice(0, 60)]
    time[20:] += 3
    time[21:] += 1.9
    time[50:] += 50_000
    assert unbroken_parts(time) == [slice(0, 20), slice(20, 50), slice(50, 60)]
    assert unbroken_parts(time, max_gap=10) == [slice(0, 50), slice(50, 60)]
    assert unbroken_parts(np.array([7.0])) == [slice(0, 1)]
    time[5] = time[4]
    with pytest.raises(ValueError, match="time does not increase after frame 4"):
        unbroken_parts(time)


def test_a_low_rate_is_no_gap() -> None:
    action, state, time = episode(5, 0.2)
    assert len(resample(robot(1), action, state, time).time_M) == 21


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(NUMBERS, min_size=1, max_size=8),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    NUMBERS,
)
@example([0.0, 1e300], 10.0, 1e308)
@example([0.0, 0.1, 0.2], 1e300, 2.0)
@example([-1e308, 1e308], 1e308, 1e308)
@example([0.0, 1e-300], 5e-324, 2.0)
def test_any_times_and_rates_give_few_frames_or_a_sentence(
    times: list[float], hz: float, max_gap: float
) -> None:
    action, state, _ = episode(len(times), 10)
    try:
        new = resample(robot(hz), action, state, np.array(times), max_gap)
    except ValueError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert len(new.time_M) <= 1000 * len(times) + 1
    assert "\n" not in sentence
