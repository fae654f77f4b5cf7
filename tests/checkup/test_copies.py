"""Episodes that repeat another one are found, even if they are cut."""

import numpy as np

from actionprior.checkup import Finding, Subject
from actionprior.checkup.copies import check_copies
from actionprior.data import Contents
from actionprior.data.store import Recording
from tests.helpers.checked import clean, robot


def found(recording: Recording) -> list[Finding]:
    return list(check_copies(Subject(robot(), "data", Contents(recording), chunk_length=15)))


def test_a_part_of_an_episode_that_is_there_again_is_found() -> None:
    recording = clean((60, 50, 40))
    recording.action_Na[110:], recording.state_Ns[110:] = (
        recording.action_Na[15:55],
        recording.state_Ns[15:55],
    )
    (finding,) = found(recording)
    assert (finding.level, finding.check, finding.episodes) == ("warning", "duplicate", (2,))
    assert "is a copy of episode 0" in finding.message
    recording.state_Ns[130:] += 1
    (finding,) = found(recording)
    assert "shares 50% of its frames with episode 0" in finding.message


def test_commands_that_are_played_again_on_the_robot_are_no_copy() -> None:
    recording = clean((60, 60))
    recording.action_Na[60:] = recording.action_Na[:60]
    assert found(recording) == []


def test_a_common_resting_pose_is_no_copy() -> None:
    recording = clean((60, 60))
    for values in (recording.action_Na, recording.state_Ns):
        values[:20] = values[60:80] = np.ones(4, np.float32)
    assert found(recording) == []
