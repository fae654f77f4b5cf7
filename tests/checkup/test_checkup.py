"""Each check finds its fault and the place of it, and reports none in clean recordings."""

from dataclasses import replace

import numpy as np
import pytest

from actionprior.checkup import Camera, Finding, Subject, check_images, check_polarities
from actionprior.data import Contents, DataError
from actionprior.data.store import Recording
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from tests.helpers.checked import clean, found, robot


def test_clean_recordings_get_notes_only() -> None:
    findings = found(clean())
    assert {finding.level for finding in findings.values()} == {"note"}
    assert "by about 2 steps (0.20 s)" in findings["lag"].message
    assert "4 of 37 action and 4 of 74 state slots" in findings["round_trip"].message
    assert "at the low end in" in findings["gripper"].message


def test_a_held_joint_is_reported() -> None:
    recording = clean()
    recording.action_Na[:, 1] = 0.25
    finding = found(recording)["constant"]
    assert (finding.level, finding.feature) == ("warning", "action j2")
    assert finding.message == "is 0.25 in every frame"


def test_an_outlier_is_reported_with_its_place() -> None:
    recording = clean()
    recording.state_Ns[80 + 7, 2] = 12.0
    finding = found(recording)["outlier"]
    assert (finding.level, finding.feature) == ("warning", "state j3")
    assert (finding.episode, finding.frame) == (1, 7)
    assert "is 12, but 98 % of values lie between" in finding.message


def test_a_gripper_that_seldom_closes_is_named_with_the_figure() -> None:
    recording = clean(lengths=(1000, 1000))
    for column in (recording.action_Na, recording.state_Ns):
        column[:, 3] = 0.0
        column[400:410, 3] = 255.0
    findings = found(recording)
    assert findings["rare"].level == "note"
    assert findings["rare"].feature in ("action grip", "state grip")
    assert "rare ones go 255 from their middle" in findings["rare"].message
    assert "wild" not in findings


def test_a_wild_frame_is_named_with_its_size() -> None:
    recording = clean(lengths=(400, 400))
    recording.state_Ns[430, 2] = 700.0
    finding = found(recording)["wild"]
    assert (finding.level, finding.episode) == ("warning", 1)
    assert "units, and other values as about 1: single frames are wild" in finding.message


def test_a_motion_of_any_unit_is_no_constant() -> None:
    recording = clean()
    recording.action_Na[:, :3] *= 1e-9
    recording.state_Ns[:, :3] *= 1e-9
    assert {"constant", "wild", "rare"}.isdisjoint(found(recording))


def test_degrees_among_radians_are_an_error() -> None:
    recording = clean()
    recording.state_Ns[:, :3] *= 57.3
    recording.action_Na[:, :3] *= 57.3
    finding = found(recording)["unit"]
    assert finding.level == "error"
    assert "is it in degrees?" in finding.message
    assert "unit" not in found(recording, robot(unit="deg"))


@pytest.mark.parametrize(
    ("lag", "check", "level"),
    [(0, "action_is_state", "error"), (1, "action_is_next_state", "note"), (3, "lag", "note")],
)
def test_action_and_state_are_compared(lag: int, check: str, level: str) -> None:
    assert found(clean(lag=lag))[check].level == level


def test_an_action_that_lags_is_reported() -> None:
    recording = clean(lag=3)
    swapped = replace(recording, action_Na=recording.state_Ns, state_Ns=recording.action_Na)
    finding = found(swapped)["action_lags_state"]
    assert finding.level == "warning"
    assert "3 steps (0.30 s) earlier" in finding.message


def test_short_episodes_and_padding_are_counted() -> None:
    findings = found(clean(lengths=(40, 9, 12)))
    assert (findings["short"].level, findings["short"].episode) == ("warning", 1)
    assert "9 frames, fewer than a chunk of 15 (2 such episodes)" in findings["short"].message
    # By hand: 14 + 13 + … + 0 = 105, 105 - 15 = 90 for 9 frames, 105 - 3 = 102 for 12.
    share = (105 + 90 + 102) / (61 * 15)
    assert findings["padded"].message.startswith(f"{share:.1%}")


def test_standing_still_is_reported() -> None:
    recording = clean(lengths=(200,))
    recording.action_Na[30:] = recording.action_Na[30]
    recording.state_Ns[30:] = recording.state_Ns[30]
    finding = found(recording)["idle"]
    assert finding.level == "warning"
    assert "`--data.skip_idle true`" in finding.advice


def test_a_whole_episode_of_standing_still_is_named() -> None:
    recording = clean(lengths=(80, 60, 90))
    recording.action_Na[80:140] = recording.action_Na[80]
    recording.state_Ns[80:140] = recording.state_Ns[80]
    findings = found(recording)
    assert (findings["still_episode"].level, findings["still_episode"].episode) == ("warning", 1)
    assert (findings["idle"].level, findings["idle"].episode, findings["idle"].frame) == (
        "note",
        1,
        0,
    )
    assert "the longest such stretch starts here and lasts 6.0 s" in findings["idle"].message


def test_a_copied_episode_is_reported() -> None:
    recording = clean(lengths=(40, 50, 40))
    recording.action_Na[90:], recording.state_Ns[90:] = (
        recording.action_Na[:40],
        recording.state_Ns[:40],
    )
    finding = found(recording)["duplicate"]
    assert (finding.level, finding.episode) == ("warning", 2)
    assert "copy of episode 0" in finding.message


# ---- units --------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "both"), [(57.3, "degrees and rad"), (0.001, "millimetres")])
def test_an_action_in_another_unit_than_its_state_is_an_error(factor: float, both: str) -> None:
    recording = clean()
    recording.action_Na[:, :3] *= 0.1 * factor
    recording.state_Ns[:, :3] *= 0.1
    arm = robot()
    arm.action[0] = replace(arm.action[0], relative_to="arm")
    finding = found(recording, arm)["unit"]
    assert (finding.level, finding.feature) == ("error", "arm")
    assert both in finding.message


def test_servo_ticks_are_recognised() -> None:
    recording = clean()
    recording.state_Ns[:, :3] = np.round(2048 + 600 * recording.state_Ns[:, :3])
    finding = found(recording)["unit"]
    assert (finding.level, finding.feature) == ("error", "state arm")
    assert "servo ticks" in finding.message
    assert "unit" not in found(recording, robot(unit="ticks"))


def test_a_gripper_may_count_in_whole_numbers() -> None:
    recording = clean()
    recording.action_Na[:, 3] *= 255
    recording.state_Ns[:, 3] *= 255
    assert "unit" not in found(recording)


def test_a_tool_that_points_straight_down_is_fine_and_zeros_are_not() -> None:
    """A turn by π about an axis is the same as about its opposite."""
    turn = ["qx", "qy", "qz", "qw"]
    arm = Embodiment(
        name="tool",
        control_hz=10,
        action=[
            ActionGroup(
                "turn", "right_arm", turn, "end_effector_rotation", "rad", 3,
                relative_to="turn", encoding="quaternion_xyzw",
            )
        ],
        state=[
            StateGroup(
                "turn", "end_effector", turn, "rotation_quaternion", "rad", 3, "quaternion_xyzw"
            )
        ],
    )  # fmt: skip
    down = np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (60, 1))
    assert found(Recording(down, down, np.array([60])), arm)["round_trip"].level == "note"
    down[0] = 0
    finding = found(Recording(down, down, np.array([60])), arm)["round_trip"]
    assert finding.level == "error"


def test_small_angles_in_degrees_are_recognised_by_their_speed() -> None:
    recording = clean()
    recording.state_Ns[:, :3] *= 10
    recording.action_Na[:, :3] *= 10
    fast = replace(robot(), control_hz=30)
    finding = found(recording, fast)["unit"]
    assert finding.level == "warning"
    assert "in its fastest 1 % of steps; is it in degrees?" in finding.message


def test_normalised_units_past_their_calibration_are_reported() -> None:
    recording = clean()
    recording.action_Na[:, 0] *= 104
    recording.state_Ns[:, 0] = np.clip(recording.state_Ns[:, 0] * 104, -100, 100)
    findings = found(recording, robot(unit="normalised"))
    assert (findings["calibration"].level, findings["calibration"].feature) == (
        "warning",
        "action j1",
    )
    assert (findings["clipped"].level, findings["clipped"].feature) == ("warning", "state j1")


def test_a_joint_at_its_limit_is_reported() -> None:
    recording = clean()
    recording.state_Ns[:, 1] = np.minimum(recording.state_Ns[:, 1], 0.5)
    finding = found(recording)["saturated"]
    assert (finding.level, finding.feature) == ("note", "state j2")
    share = (recording.state_Ns[:, 1] == 0.5).mean()
    assert f"exactly 0.5, its highest value, in {share:.0%} of frames" in finding.message
    assert recording.state_Ns[:, 1][finding.frame + 80 * finding.episode] == 0.5


def test_an_episode_that_begins_with_a_jump_is_reported() -> None:
    recording = clean()
    assert "start" not in found(recording)
    recording.action_Na[80, 2] += 1.5
    finding = found(recording)["start"]
    assert (finding.level, finding.feature) == ("warning", "action j3")
    assert (finding.episode, finding.frame) == (1, 0)
    assert finding.episodes == (1,)
    recording.action_Na[100:, 2] += 1.5  # as far off later, too: no jump at the start
    assert "start" not in found(recording)


# ---- grippers -----------------------------------------------------------------------------


def test_a_gripper_that_moves_against_its_state_is_reported() -> None:
    recording = clean()
    recording.action_Na[:, 3] = 1 - recording.action_Na[:, 3]
    finding = found(recording)["gripper_polarity"]
    assert (finding.level, finding.feature) == ("warning", "action grip")


def test_grippers_that_start_at_opposite_ends_are_reported() -> None:
    one, two = clean(), clean()
    one.action_Na[[0, 80], 3] = 0
    two.action_Na[[0, 80], 3] = 1
    subjects = [
        Subject(replace(robot(), name=name), "data", Contents(recording), 15)
        for name, recording in (("one", one), ("two", two), ("three", one))
    ]
    (finding,) = check_polarities(subjects)
    assert (finding.level, finding.robot) == ("warning", "two")
    assert "'grip' of 'one' starts at 0%" in finding.message
    assert not list(check_polarities([subjects[0], subjects[2]]))


# ---- time and tasks -----------------------------------------------------------------------


def times(lengths: tuple[int, ...] = (80, 60), hz: float = 10) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([np.arange(n) / hz + rng.uniform(0, 0.002, n) for n in lengths])


def test_good_timestamps_pass_and_computed_ones_are_reported() -> None:
    assert not {"timestamps", "rate", "gap", "jitter"} & set(found(clean(), timestamp_N=times()))
    computed = np.concatenate([np.arange(n) / 10 for n in (80, 60)])
    finding = found(clean(), timestamp_N=computed)["timestamps"]
    assert finding.level == "note"
    assert "lost or late frames cannot be seen" in finding.message


def test_time_that_does_not_increase_is_an_error_with_its_place() -> None:
    time_N = times()
    time_N[80 + 20] = time_N[80 + 19]
    finding = found(clean(), timestamp_N=time_N)["timestamps"]
    assert (finding.level, finding.episode, finding.frame) == ("error", 1, 20)


def test_a_lost_frame_is_a_gap() -> None:
    time_N = times()
    time_N[80 + 30 :] += 0.1
    finding = found(clean(), timestamp_N=time_N)["gap"]
    assert (finding.level, finding.episode, finding.frame) == ("warning", 1, 29)
    assert "2.0 periods (1 such gaps)" in finding.message


@pytest.mark.parametrize(
    ("hz", "trusted", "level"),
    [(9.25, False, "error"), (9.25, True, "warning"), (9.8, 0, "warning")],
)
def test_another_rate_is_reported_with_its_worst_episode(
    hz: float, trusted: bool, level: str
) -> None:
    time_N = times()
    time_N[80:] = times((60,), hz)
    finding = found(clean(), timestamp_N=time_N, trust_rate=trusted)["rate"]
    assert (finding.level, finding.episode) == (level, 1)
    assert f"runs at {hz:.2f} Hz, but the robot at 10 Hz" in finding.message
    assert "1 of 2 off by more than 1 %" in finding.message


def test_jitter_is_reported() -> None:
    time_N = times() + np.random.default_rng(1).uniform(0, 0.04, 140)
    assert found(clean(), timestamp_N=time_N)["jitter"].level == "warning"


def test_instructions_are_checked() -> None:
    tasks = ["pick it", " ", "Pick it.", "never"]
    task_N = np.repeat([0, 1, 2], [80, 30, 30])
    findings = found(clean(), task_N=task_N, tasks=tasks)
    assert (findings["empty_task"].level, findings["empty_task"].episode) == ("warning", 1)
    assert "such as 'never'" in findings["unused_task"].message
    assert "['pick it', 'Pick it.']" in findings["task_spelling"].message
    assert (findings["task_changes"].episode, findings["task_changes"].frame) == (1, 30)
    single = found(clean(), task_N=np.zeros(140, int), tasks=["pick it"])
    assert single["one_task"].level == "note"
    assert not {"empty_task", "unused_task", "task_spelling", "task_changes"} & set(single)


def test_missing_videos_are_reported() -> None:
    finding = found(clean(), absent_videos={"front": [1]})["absent_video"]
    assert (finding.level, finding.feature, finding.episode) == ("note", "front", 1)


# ---- images -------------------------------------------------------------------------------

LENGTHS = (40, 30, 30, 30, 30)


def picture(camera: int, episode: int, row: int) -> np.ndarray:
    """Each camera has its own background; a bar moves with the row."""
    image = np.full((3, 32, 48), 60 + 100 * camera, np.uint8)
    image[camera] += np.arange(48, dtype=np.uint8)
    image[:, :, (row + 3 * episode) % 48] = 250
    return image


def seen(**spoilt) -> list[Finding]:
    subject = Subject(robot(), "data", Contents(clean(LENGTHS)), chunk_length=15)
    cameras = [
        Camera(name, spoilt.get(name, lambda e, r, i=i: picture(i, e, r)), (32, 48))
        for i, name in enumerate(("front", "wrist"))
    ]
    return list(check_images(subject, cameras))


def test_good_cameras_pass() -> None:
    assert seen() == []


def test_a_black_camera_is_reported_with_its_episode() -> None:
    black = np.full((3, 32, 48), 3, np.uint8)
    (finding,) = seen(wrist=lambda e, r: black if e == 2 else picture(1, e, r))
    assert (finding.level, finding.check, finding.feature, finding.episode) == (
        "error",
        "black",
        "wrist",
        2,
    )
    (finding,) = seen(wrist=lambda e, r: black if (e, r) == (2, 0) else picture(1, e, r))
    assert (finding.level, finding.episode, finding.frame) == ("warning", 2, 0)


def test_a_plain_picture_is_reported() -> None:
    findings = seen(front=lambda e, r: np.full((3, 32, 48), 200, np.uint8))
    assert {(f.level, f.check, f.feature) for f in findings} == {("error", "plain", "front")}
    assert len(findings) == 3
    assert "(the same in 2 more episodes)" in findings[-1].message


def test_a_frozen_video_is_reported_while_the_robot_moves() -> None:
    (finding,) = seen(front=lambda e, r: picture(0, e, 0 if e == 3 else r))
    assert (finding.level, finding.check, finding.episode) == ("error", "frozen", 3)
    (finding,) = seen(front=lambda e, r: picture(0, e, max(r, 20) if e == 3 else r))
    assert (finding.level, finding.episode) == ("warning", 3)


def test_swapped_cameras_are_reported() -> None:
    found = seen(
        front=lambda e, r: picture(int(e == 1), e, r), wrist=lambda e, r: picture(int(e != 1), e, r)
    )
    assert [(f.level, f.check, f.episode) for f in found] == [("error", "camera_swap", 1)]
    assert "looks like 'wrist' of the other episodes" in found[0].message


def test_an_unreadable_image_is_reported_and_the_others_are_checked() -> None:
    def broken(episode: int, row: int) -> np.ndarray:
        if episode == 1:
            raise DataError("file 7 is damaged")
        return np.zeros((3, 32, 48), np.uint8)

    findings = {f.check: f for f in seen(front=broken)}
    assert (findings["no_image"].level, findings["no_image"].episode) == ("error", 1)
    assert "file 7 is damaged" in findings["no_image"].message
    assert "black" in findings
