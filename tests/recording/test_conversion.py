"""Recordings in other formats become LeRobot datasets of the same values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actionprior.recording.alignment import Clock
from actionprior.recording.conversion import Choice, convert_episode, write_dataset
from actionprior.recording.formats.episode import ConversionError
from actionprior.recording.formats.files import find_episodes
from tests.helpers.recordings_elsewhere import JOINTS, pictures, states, write_csv


def episode(folder: Path, frames: int = 6, **columns: Any) -> Path:
    """Write ``a.csv`` with three joints; further columns are added or replace them."""
    recorded = dict(zip(JOINTS, states(frames).T, strict=True)) | {"task": ["reach"] * frames}
    return write_csv(folder / "a.csv", recorded | columns)


def converted(path: Path, **choice: Any) -> Any:
    episodes = find_episodes(str(path), "")  # it keeps the file open
    recorded = next(episodes)
    clock = Clock(
        choice.pop("control_hz", 10),
        **{key: choice.pop(key) for key in ("time_key", "time_unit", "max_gap") if key in choice},
    )
    return convert_episode(recorded, Choice(clock, **{"state": ["j?"], "action": ["j?"]} | choice))


def test_recorded_actions_stay_what_they_are(tmp_path: Path) -> None:
    found = converted(episode(tmp_path, grip=[0, 0, 0, 1, 1, 1]), action=["j3", "grip"])
    np.testing.assert_allclose(found.state.values_Tn, states(6))
    assert found.action.names == ["j3", "grip"]
    np.testing.assert_allclose(found.action.values_Tn[:, 0], states(6)[:, 2])
    assert found.instruction == "reach"


@pytest.mark.parametrize("later", [1, 2])
def test_the_next_state_is_the_action_of_guided_demonstrations(tmp_path: Path, later: int) -> None:
    found = converted(episode(tmp_path), action=[], next_state=later, state_names=["a", "b", "c"])
    np.testing.assert_allclose(found.state.values_Tn, states(6)[:-later])
    np.testing.assert_allclose(found.action.values_Tn, states(6)[later:])
    assert found.action.names == found.state.names == ["a", "b", "c"]


@pytest.mark.parametrize(("unit", "scale"), [("s", 1.0), ("ms", 1e3), ("ns", 1e9)])
def test_each_frame_takes_the_newest_sample(tmp_path: Path, unit: str, scale: float) -> None:
    rng = np.random.default_rng(0)
    times = 5 + np.arange(60) / 50 + rng.uniform(-0.002, 0.002, 60)  # 50 Hz with jitter
    path = episode(tmp_path, 60, t=times * scale)
    found = converted(path, time_key="t", time_unit=unit)
    np.testing.assert_allclose(found.state.values_Tn, states(60)[::5], atol=1e-12)


def test_a_gap_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    path = episode(tmp_path, t=[0, 0.1, 0.2, 3.0, 3.1, 3.2])
    with pytest.raises(ConversionError, match=r"has no sample for 2\.7 s before 2\.9 s"):
        converted(path, time_key="t")
    held = converted(path, time_key="t", max_gap=5)
    np.testing.assert_allclose(held.state.values_Tn[2:30], np.repeat(states(6)[2:3], 28, 0))


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no key": ({}, {"action": ["j9"]}, r"has no 'j9'; near are j"),
    "no state": ({}, {"state": None}, r"which keys are the state. Set --state, or --state \[\] if"),
    "no action": ({}, {"action": []}, "or --next_state 1 if the robot was guided by hand"),
    "both": ({}, {"next_state": 1}, "exclude each other"),
    "short": ({}, {"action": [], "next_state": 6}, "has 6 frames, too few for --next_state 6"),
    "text": ({"j2": list("abcdef")}, {}, "'j2' holds .*, expected numbers"),
    "NaN": ({"j2": [0, 0, "", 0, 0, 0]}, {}, r"'j2' of the state is nan at frame 2"),
    "large": ({"j2": [0, 0, 1e300, 0, 0, 0]}, {}, r"'j2' of the state is 1e\+300 at frame 2"),
    "twice": ({}, {"state": ["j1", "j?"]}, "has the name 'j1' twice; set --state_names"),
    "names": ({}, {"action_names": ["a"]}, r"the action has 3 entries.* --action_names has 1"),
    "back": ({"t": [0, 1, 2, 1.5, 3, 4]}, {"time_key": "t"}, "goes back from 2 s to 1.5 s"),
    "unit": ({"t": np.arange(6) * 10**8}, {"time_key": "t"}, r"another unit than s \(--time_unit"),
    "NaN time": ({"t": [0, "", 2, 3, 4, 5]}, {"time_key": "t"}, "is not finite at sample 1"),
    "task": ({"task": list("aabbaa")}, {}, "'task' has 2 texts"),
    "camera": ({}, {"cameras": {"../a": "j1"}}, r"camera's name '\.\./a' has other characters"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, case: str) -> None:
    columns, choice, message = CASES[case]
    with pytest.raises(ConversionError, match=message) as error:
        converted(episode(tmp_path, **columns), **choice)
    assert "\n" not in str(error.value)


def test_an_instruction_is_needed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", dict(zip(JOINTS, states(4).T, strict=True)))
    with pytest.raises(ConversionError, match="has no instruction; set --task"):
        converted(path)
    assert converted(path, task="reach").instruction == "reach"


def test_episodes_of_other_names_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    episode(tmp_path)
    write_csv(tmp_path / "b.csv", {"j1": [0, 1], "k2": [0, 1], "task": ["reach"] * 2})
    choice = Choice(Clock(10), ["[jk]?"], ["j1"])
    with pytest.raises(ConversionError, match=r"the state of .*b\.csv has \['j1', 'k2'\], but"):
        write_dataset(find_episodes(str(tmp_path), ""), choice, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert {p.suffix for p in tmp_path.iterdir()} == {".csv"}


def test_images_of_one_camera_have_one_size(tmp_path: Path) -> None:
    images = pictures(3).repeat(2, axis=0)
    np.savez(tmp_path / "a.npz", s=states(6), front=images, task="reach")
    found = converted(tmp_path / "a.npz", state=["s"], action=["s"], cameras={"front": "front"})
    stream = found.cameras["observation.images.front"]
    assert [int(i[0, 0, 0]) for i in stream[0].read([1, 1, 4])] == [0, 0, 2]
    smaller = stream[0]._replace(read=lambda chosen: (images[i, i:] for i in chosen))
    found.cameras["observation.images.front"] = (smaller, stream[1])
    with pytest.raises(ConversionError, match=r"has the shape \(23, 32, 3\), and the first one"):
        list(found.frames(False))
