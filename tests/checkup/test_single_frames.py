"""Single frames that leave the motion are named, and motion itself is not."""

from collections.abc import Callable

import numpy as np
import pytest

from actionprior.checkup import Finding, Subject
from actionprior.checkup.copies import check_copies
from actionprior.checkup.single_frames import check_single_frames
from actionprior.checkup.stretches import check_stretches
from actionprior.data import Contents
from actionprior.data.store import Recording
from tests.helpers.checked import clean, robot

LENGTHS = (80, 60, 90)


def found(recording: Recording) -> list[Finding]:
    subject = Subject(robot(), "data", Contents(recording), chunk_length=15)
    return list(check_single_frames(subject))


def smooth() -> Recording:
    """Motion at which a frame's step is small."""
    recording = clean(LENGTHS)
    rng = np.random.default_rng(3)
    for values in (recording.action_Na, recording.state_Ns):
        values[:, :3] += rng.normal(0, 1e-3, (len(values), 3)).astype(np.float32)
    return recording


def test_motion_with_noise_gives_nothing() -> None:
    assert found(smooth()) == []


@pytest.mark.parametrize("width", [1, 2, 3])
def test_wild_frames_are_placed(width: int) -> None:
    recording = smooth()
    recording.state_Ns[80 + 20 : 80 + 20 + width, 1] += 1.0
    (finding,) = found(recording)
    assert (finding.level, finding.check, finding.feature) == ("warning", "wild_frame", "state j2")
    assert (finding.episode, finding.frame, finding.episodes) == (1, 20, (1,))


def test_wild_frames_of_one_feature_are_one_finding_at_the_largest() -> None:
    recording = smooth()
    recording.action_Na[30, 0] += 1.2
    recording.action_Na[160, 0] -= 1.5
    (finding,) = found(recording)
    assert (finding.feature, finding.episode, finding.frame) == ("action j1", 2, 20)
    assert finding.episodes == (0, 2)
    assert "(2 such places)" in finding.message


def test_a_zero_frame_is_named_by_its_group() -> None:
    recording = smooth()
    recording.action_Na[85, :3] = 0
    (finding,) = found(recording)
    assert (finding.check, finding.feature) == ("zero_frame", "action arm")
    assert (finding.episode, finding.frame) == (1, 5)


def test_zeros_at_the_start_of_an_episode_are_found() -> None:
    recording = smooth()
    recording.state_Ns[80:84, :3] = 0
    (finding,) = found(recording)
    assert (finding.check, finding.feature) == ("zero_frame", "state arm")
    assert (finding.episode, finding.frame) == (1, 0)
    assert "is exactly 0 for 4 frames" in finding.message


@pytest.mark.parametrize("check", [check_single_frames, check_stretches, check_copies])
def test_recordings_of_one_frame_are_read(check: Callable[[Subject], list[Finding]]) -> None:
    recording = Recording(np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), np.ones(2, int))
    subject = Subject(robot(), "data", Contents(recording), chunk_length=15)
    assert [f.check for f in check(subject)] in ([], ["duplicate"])
