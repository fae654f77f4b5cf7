"""Frozen states, held values and jumps are placed at the frame where they start."""

import numpy as np
import pytest

from actionprior.checkup import Finding, Subject
from actionprior.checkup.stretches import check_stretches
from actionprior.data import Contents
from actionprior.data.store import Recording
from tests.helpers.checked import clean, robot

LENGTHS = (80, 60, 90)


def found(recording: Recording) -> list[Finding]:
    return list(check_stretches(Subject(robot(), "data", Contents(recording), chunk_length=15)))


def moving() -> Recording:
    recording = clean(LENGTHS)
    rng = np.random.default_rng(1)
    for values in (recording.action_Na, recording.state_Ns):
        values[:, :3] += rng.normal(0, 1e-3, (len(values), 3)).astype(np.float32)
    return recording


def test_motion_gives_nothing() -> None:
    assert found(moving()) == []


@pytest.mark.parametrize(("stop", "check"), [(60, "frozen_state"), (22, "held")])
def test_a_state_that_stands_still_under_commands_is_placed(stop: int, check: str) -> None:
    recording = moving()
    state_TS = recording.state_Ns[80 + 12 : 80 + stop]
    joint = int(np.abs(recording.state_Ns[80 + stop] - state_TS[0])[:3].argmax())
    state_TS[:, joint] = state_TS[0, joint]
    finding = next(f for f in found(recording) if f.check == check)
    assert (finding.level, finding.feature) == ("warning", f"state j{joint + 1}")
    assert (finding.episode, finding.frame, finding.episodes) == (1, 12, (1,))


def test_a_robot_at_rest_is_not_frozen() -> None:
    recording = moving()
    recording.action_Na[100:130] = recording.action_Na[100]
    recording.state_Ns[100:130] = recording.state_Ns[100]
    step = recording.action_Na[130] - recording.action_Na[100]
    recording.action_Na[130:140] -= step
    recording.state_Ns[130:140] -= recording.state_Ns[130] - recording.state_Ns[100]
    assert "frozen_state" not in {f.check for f in found(recording)}


def test_a_jump_is_placed() -> None:
    recording = moving()
    recording.state_Ns[80 + 30 : 140, 2] += 2.0
    (finding,) = found(recording)
    assert (finding.check, finding.feature) == ("jump", "state j3")
    assert (finding.episode, finding.frame) == (1, 30)


def test_commands_of_a_lower_rate_are_no_fault() -> None:
    recording = moving()
    recording.action_Na[:] = np.repeat(recording.action_Na[::5], 5, axis=0)[: sum(LENGTHS)]
    assert "held" not in {f.check for f in found(recording)}


def test_what_many_episodes_have_is_a_habit_and_excludes_nothing() -> None:
    recording = clean((60,) * 10)
    for episode in range(3):
        recording.state_Ns[60 * episode + 30 : 60 * episode + 60, 1] += 2.0
    (finding,) = found(recording)
    assert (finding.level, finding.check, finding.feature) == ("note", "jump", "state arm")
    assert "in 2 more of 10 episodes: a habit" in finding.message
    assert finding.episodes == ()
