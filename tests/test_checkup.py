"""Each check finds what it is for, where it is, and says nothing of clean recordings."""

from dataclasses import replace

import numpy as np
import pytest

from actionprior.checkup import Checkup, Finding
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.trajectories import Recording

JOINTS = ["j1", "j2", "j3"]


def robot(unit: str = "rad") -> Embodiment:
    return Embodiment(
        name="arm",
        control_hz=10,
        action=[
            ActionGroup("arm", "joints", JOINTS, "joint_position", unit, 0, "arm"),
            ActionGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        state=[
            StateGroup("arm", "joints", JOINTS, "position", unit),
            StateGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
    )


def clean(lengths: tuple[int, ...] = (80, 60), lag: int = 2) -> Recording:
    """Smooth motion; the state follows the action by ``lag`` steps."""
    rng = np.random.default_rng(0)
    action, state = [], []
    for length in lengths:
        t = np.arange(length + lag)[:, None] / 10
        path = np.sin(t * rng.uniform(0.5, 1.5, 3) + rng.uniform(0, 6, 3))
        grip = (np.sin(t) > 0).astype(float)
        both = np.concatenate([path, grip], axis=1).astype(np.float32)
        action.append(both[lag:])
        state.append(both[:length])
    return Recording(np.concatenate(action), np.concatenate(state), np.array(lengths))


def found(recording: Recording, arm: Embodiment | None = None) -> dict[str, Finding]:
    findings = Checkup(arm or robot(), "data", recording, chunk_length=15).findings()
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    return {finding.check: finding for finding in findings}


def test_clean_recordings_get_notes_alone() -> None:
    told = found(clean())
    assert {finding.level for finding in told.values()} == {"note"}
    assert "by about 2 steps (0.20 s)" in told["lag"].message
    assert "4 of 37 action and 4 of 74 state slots" in told["round_trip"].message
    assert "at the low end in" in told["gripper"].message


def test_a_held_joint_is_told() -> None:
    recording = clean()
    recording.action_Na[:, 1] = 0.25
    told = found(recording)["constant"]
    assert (told.level, told.feature) == ("warning", "action j2")
    assert told.message == "is 0.25 in every frame"


def test_an_outlier_is_told_with_its_place() -> None:
    recording = clean()
    recording.state_Ns[80 + 7, 2] = 12.0
    told = found(recording)["outlier"]
    assert (told.level, told.feature) == ("warning", "state j3")
    assert (told.episode, told.frame) == (1, 7)
    assert "is 12, where 98 % lie in" in told.message


def test_degrees_among_radians_are_an_error() -> None:
    recording = clean()
    recording.state_Ns[:, :3] *= 57.3
    recording.action_Na[:, :3] *= 57.3
    told = found(recording)["unit"]
    assert told.level == "error"
    assert "is it in degrees?" in told.message
    assert "unit" not in found(recording, robot(unit="deg"))


@pytest.mark.parametrize(
    ("lag", "check", "level"),
    [(0, "action_is_state", "error"), (1, "action_is_next_state", "note"), (3, "lag", "note")],
)
def test_action_and_state_are_compared(lag: int, check: str, level: str) -> None:
    assert found(clean(lag=lag))[check].level == level


def test_an_action_that_lags_is_told() -> None:
    recording = clean(lag=3)
    swapped = replace(recording, action_Na=recording.state_Ns, state_Ns=recording.action_Na)
    told = found(swapped)["action_lags_state"]
    assert told.level == "warning"
    assert "3 steps (0.30 s) earlier" in told.message


def test_short_episodes_and_padding_are_counted() -> None:
    told = found(clean(lengths=(40, 9, 12)))
    assert (told["short"].level, told["short"].episode) == ("warning", 1)
    assert "9 frames, fewer than a chunk of 15 (2 such episodes)" in told["short"].message
    # By hand: 14 + 13 + … + 0 = 105, 105 - 15 = 90 for 9 frames, 105 - 3 = 102 for 12.
    share = (105 + 90 + 102) / (61 * 15)
    assert told["padded"].message.startswith(f"{share:.1%}")


def test_standing_still_is_told() -> None:
    recording = clean(lengths=(200,))
    recording.action_Na[30:] = recording.action_Na[30]
    recording.state_Ns[30:] = recording.state_Ns[30]
    told = found(recording)["idle"]
    assert told.level == "warning"
    assert "consider skip_idle" in told.message
