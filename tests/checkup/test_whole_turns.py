"""Angles that turn past their end are found in both units, within and between episodes."""

import numpy as np
import pytest

from actionprior.embodiment import ActionGroup, StateGroup
from tests.helpers.checked import JOINTS, clean, found, robot

TURN = {"rad": 2 * np.pi, "deg": 360.0}


@pytest.mark.parametrize("unit", ["rad", "deg"])
def test_a_joint_that_jumps_by_a_whole_turn_is_reported(unit: str) -> None:
    recording, turn = clean(), TURN[unit]
    assert "whole_turn" not in found(recording, robot(unit))
    recording.state_Ns[:, 1] = (recording.state_Ns[:, 1] * turn / 8) % turn  # around 0
    finding = found(recording, robot(unit))["whole_turn"]
    assert (finding.level, finding.feature) == ("warning", "state j2")
    jumps = np.abs(np.diff(recording.state_Ns[:, 1])) > 0.9 * turn
    jumps[79] = False  # the edge of an episode
    assert f"({jumps.sum()} such jumps)" in finding.message
    assert "representation: wrapped_angle" in finding.advice
    arm = robot(unit)
    arm.state[0] = StateGroup("arm", "body", JOINTS, "wrapped_angle", unit)
    assert "whole_turn" not in found(recording, arm)


def narrow(unit: str, lengths: tuple[int, ...] = (80, 60, 70)):
    """Recordings in which every joint moves within a quarter of a turn."""
    recording = clean(lengths)
    recording.action_Na[:, :3] *= TURN[unit] / 8
    recording.state_Ns[:, :3] *= TURN[unit] / 8
    return recording


@pytest.mark.parametrize("unit", ["rad", "deg"])
@pytest.mark.parametrize("turns", [1, -1, 2])
def test_an_episode_a_whole_turn_away_is_reported(unit: str, turns: int) -> None:
    recording = narrow(unit)
    assert "whole_turn" not in found(recording, robot(unit))
    recording.state_Ns[80:140, 2] += turns * TURN[unit]
    recording.action_Na[80:140, 2] += turns * TURN[unit]
    finding = found(recording, robot(unit))["whole_turn"]
    assert (finding.level, finding.episode, finding.frame) == ("warning", 1, 0)
    assert finding.feature.endswith("j3")
    assert "(1 such episodes)" in finding.message
    arm = robot(unit)
    arm.action[0] = ActionGroup("arm", "joints", JOINTS, "wrapped_angle", unit, 0, "arm")
    arm.state[0] = StateGroup("arm", "body", JOINTS, "wrapped_angle", unit)
    assert "whole_turn" not in found(recording, arm)


@pytest.mark.parametrize("unit", ["rad", "deg"])
def test_an_action_a_whole_turn_from_its_state_is_reported(unit: str) -> None:
    recording = narrow(unit)
    recording.action_Na[:, 1] += TURN[unit]
    finding = found(recording, robot(unit))["whole_turn"]
    assert finding.feature == "action j2"
    assert "is a whole turn away from its state" in finding.message
    assert "in 100.0% of frames" in finding.message


def test_a_fast_joint_that_passes_its_end_between_frames_is_reported() -> None:
    recording = narrow("deg", (200,))
    turning = np.arange(200) * 55.0  # 550 degrees per second at 10 Hz
    recording.state_Ns[:, 0] = (turning + 180) % 360 - 180
    finding = found(recording, robot("deg"))["whole_turn"]
    assert finding.feature == "state j1"


def test_episodes_at_other_places_are_no_turn_away() -> None:
    recording = narrow("deg")
    recording.state_Ns[80:140, 2] += 150
    recording.action_Na[80:140, 2] += 150
    assert "whole_turn" not in found(recording, robot("deg"))
