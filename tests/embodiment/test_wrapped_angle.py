"""Joints that turn past ±180°: learnt, resampled and averaged the shorter way round."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from actionprior.checkup import Subject, examine
from actionprior.data import Contents
from actionprior.data.resampling import resample
from actionprior.data.store import Recording, TrajectoryStore, TrajectoryWindows
from actionprior.embodiment import ActionGroup, Embodiment, EmbodimentError, StateGroup
from actionprior.embodiment.normalization import Normalizer
from actionprior.policy import Policy
from actionprior.rollout.results import jerk
from tests.helpers.policies import tiny_network

TURN = {"rad": 2 * math.pi, "deg": 360.0}
UNITS = pytest.mark.parametrize("unit", ["rad", "deg"])
STEPS, LENGTH = 15, 40


def wrist(unit: str, hz: float = 10) -> Embodiment:
    """Two joints that turn past their end, beside one that does not."""
    turning, straight = ["roll", "yaw"], ["slide"]
    return Embodiment(
        name="wrist",
        control_hz=hz,
        action=[
            ActionGroup("wrist", "joints", turning, "wrapped_angle", unit, 0, "wrist"),
            ActionGroup("slide", "joints", straight, "joint_position", "m", 2, "slide"),
        ],
        state=[
            StateGroup("wrist", "body", turning, "wrapped_angle", unit),
            StateGroup("slide", "body", straight, "position", "m", 4),
        ],
        cameras=["observation.images.front"],
    )


def within_a_turn(angle: np.ndarray, unit: str) -> np.ndarray:
    """Values as a dataset has them: from minus half a turn to half a turn."""
    return (angle + TURN[unit] / 2) % TURN[unit] - TURN[unit] / 2


def crossing(unit: str, frames: int = LENGTH, hz: float = 10) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) states and the way they really took: up and down across half a turn, both ways."""
    time = np.arange(frames)[:, None] / hz
    true = np.concatenate([170 + 25 * time, -170 - 25 * time, 0.3 + 0.1 * time], axis=1)
    true[:, :2] *= TURN[unit] / 360
    state = true.copy()
    state[:, :2] = within_a_turn(true[:, :2], unit)
    return state.astype(np.float32), true


def store(unit: str) -> TrajectoryStore:
    state, _ = crossing(unit, LENGTH + 1)
    recording = Recording(state[1:], state[:-1], np.array([LENGTH]))
    return TrajectoryStore([wrist(unit)], [(0, recording)])


@UNITS
def test_the_learnt_form_has_no_jumps_and_returns_exactly(unit: str) -> None:
    frames = torch.arange(LENGTH - STEPS)
    batch = store(unit).future(frames, STEPS)
    normalizer = Normalizer([wrist(unit)], chunk_length=STEPS)
    relative = normalizer.relative_action(batch)
    _, true = crossing(unit, LENGTH + 1)
    way = np.stack([true[f + 1 : f + 1 + STEPS] - true[f] for f in frames.tolist()])
    np.testing.assert_allclose(relative[..., 29:32].numpy(), way, atol=1e-4)
    # Continuous with the state, and equal to what was recorded up to whole turns.
    back = normalizer.absolute_action(relative, batch.reference_BA, batch.embodiment_B)
    torch.testing.assert_close(
        back[..., 29:32], batch.reference_BA[:, None, 29:32] + relative[..., 29:32], rtol=0, atol=0
    )
    off = (back - batch.action_BHA)[..., 29:31] / TURN[unit]
    torch.testing.assert_close(off, off.round(), atol=1e-6, rtol=0)
    assert off.round().abs().max() == 1
    again = normalizer.relative_action(batch._replace(action_BHA=back))
    torch.testing.assert_close(again, relative, atol=1e-4 * TURN[unit] / 360, rtol=0)
    normalizer.fit(batch)
    normal = normalizer.normalize_action(batch)
    restored = normalizer.unnormalize_action(normal, batch.embodiment_B)
    torch.testing.assert_close(restored, relative, atol=1e-3 * TURN[unit] / 360, rtol=1e-5)


@UNITS
def test_a_chunk_may_turn_on_past_half_a_turn(unit: str) -> None:
    batch = store(unit).future(torch.tensor([0]), STEPS)
    way = torch.linspace(0.05, 1.5, STEPS) * TURN[unit]  # one and a half turns
    batch.action_BHA[0, :, 29] = torch.from_numpy(
        within_a_turn((batch.reference_BA[0, 29] + way).numpy(), unit)
    )
    relative = Normalizer([wrist(unit)], chunk_length=STEPS).relative_action(batch)
    torch.testing.assert_close(relative[0, :, 29], way, atol=1e-4, rtol=1e-5)


@UNITS
def test_states_do_not_jump(unit: str) -> None:
    robot, (state, _) = wrist(unit), crossing(unit)
    assert robot.state_mask().nonzero()[0].tolist() == [16, 17, 18, 19, 20]
    unified = robot.state_to_unified(state)
    assert np.abs(np.diff(unified[:, 16:20], axis=0)).max() < math.radians(2.6)
    angle = np.arctan2(unified[:, 16:20:2], unified[:, 17:20:2]) * TURN[unit] / (2 * math.pi)
    off = (angle - state[:, :2]) / TURN[unit]
    np.testing.assert_allclose(off, off.round(), atol=1e-6)
    np.testing.assert_array_equal(robot.reference(state)[:, 29:32], state)


@UNITS
@pytest.mark.parametrize("hz", [5, 10, 23, 60])
def test_resampling_does_not_spin(unit: str, hz: float) -> None:
    state, _ = crossing(unit)
    new = resample(wrist(unit, hz), state, state, np.arange(LENGTH) / 10)
    expected, _ = crossing(unit, len(new.time_M), hz)
    for values in (new.action_MA, new.state_MS):
        off = (values - expected)[:, :2] / TURN[unit]
        np.testing.assert_allclose(off, off.round(), atol=1e-5)
        np.testing.assert_allclose(values[:, 2], expected[:, 2], atol=1e-4)
        # Values stay within the turn that was recorded, less than a frame's way beyond its end.
        assert np.abs(values[:, :2]).max() <= TURN[unit] / 2 * (1 + 1.3 / 180)


def test_resampling_stays_in_a_turn_that_starts_at_zero() -> None:
    state = np.array([[359, 1, 0], [1, 359, 1]], np.float32)
    new = resample(wrist("deg", 40), state, state, np.array([0, 0.1]))
    np.testing.assert_allclose(new.state_MS[:, 0], [359, 359.5, 0, 0.5, 1], atol=1e-5)
    np.testing.assert_allclose(new.state_MS[:, 1], [1, 0.5, 360, 359.5, 359], atol=1e-5)


@UNITS
def test_an_ensemble_of_either_side_lies_between_them(unit: str) -> None:
    policy = Policy(tiny_network([wrist(unit)]), execute_steps=1, ensemble=0.0)
    said = [179 / 360 * TURN[unit], -179 / 360 * TURN[unit]]
    policy._chunk = lambda _: np.full((12, 3), said.pop(0), np.float32)  # type: ignore[method-assign]  # a spy
    observation = {
        "observation.state": np.zeros(3, np.float32),
        "observation.images.front": np.zeros((48, 48, 3), np.uint8),
        "task": "turn",
    }
    policy.reset(0)
    policy.select_action(observation)
    mean = policy.select_action(observation)
    np.testing.assert_allclose(np.abs(mean[:2]), TURN[unit] / 2, rtol=1e-6)  # 180° is -180°
    np.testing.assert_allclose(mean[2], 0, atol=1e-5)  # the slide does not wrap


@UNITS
def test_controls_jerk_and_the_doctor_see_no_jump(unit: str) -> None:
    robot, (state, true) = wrist(unit), crossing(unit, LENGTH + 1)
    assert jerk(state, robot) == pytest.approx(jerk(true.astype(np.float32), robot), abs=1e-4)
    for seeds in ({"noise_seed": 1}, {"shuffle_seed": 1}):
        windows = TrajectoryWindows(store(unit), STEPS, **seeds)
        batch = windows.__getitems__(list(range(LENGTH - STEPS)))
        relative = Normalizer([robot], chunk_length=STEPS).relative_action(batch)
        assert relative[..., 29:31].abs().max() < TURN[unit] / 4
    contents = Contents(Recording(state[1:], state[:-1], np.array([LENGTH])))
    found = {f.check: f for f in examine(Subject(robot, "turns", contents, STEPS))}
    assert found["round_trip"].level == "note"
    assert "outlier" not in found
    assert "unit" not in found
    assert "start" not in found


def test_bad_descriptions_are_refused() -> None:
    robot = wrist("deg")
    action, state = robot.action[0], robot.state[0]
    for changes, message in (
        ({"action": [replace(action, relative_to="")]}, "'wrapped_angle' without relative_to"),
        ({"action": [replace(action, unit="turns")]}, "unit is 'rad' or 'deg', found 'turns'"),
        ({"state": [replace(state, unit="rad")]}, "in 'deg', but its relative_to 'wrist' has 2"),
        ({"action": [replace(action, encoding="axis_angle")]}, "is for rotations"),
    ):
        parts = {"action": robot.action[:1], "state": robot.state[:1], **changes}
        with pytest.raises(EmbodimentError, match=message):
            Embodiment(name="wrist", control_hz=10, **parts)
