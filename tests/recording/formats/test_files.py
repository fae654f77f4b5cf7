"""Recordings are found by file, folder and pattern, in the order of their numbers."""

from pathlib import Path

import pytest

from actionprior.recording.formats.episode import ConversionError
from actionprior.recording.formats.files import find_episodes
from tests.helpers.recordings_elsewhere import write_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (10, 2, 1):
        write_csv(tmp_path / f"episode_{number}.csv", {"x": [number, number]})
    return tmp_path


@pytest.mark.parametrize("source", ["", "/*.csv", "/episode_*"])
def test_numbers_in_names_count(folder: Path, source: str) -> None:
    found = find_episodes(f"{folder}{source}", "")
    assert [episode.vector("x").values_Tn[0, 0] for episode in found] == [1, 2, 10]


def test_what_is_no_recording_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text("")
    for source in (folder / "notes.txt", folder / "*.npz"):
        with pytest.raises(ConversionError, match="holds no recording; expected files that end"):
            list(find_episodes(str(source), ""))
    with pytest.raises(ConversionError, match="nowhere does not exist"):
        list(find_episodes(str(folder / "nowhere"), ""))
    (folder / "a.npz").write_bytes(b"")
    with pytest.raises(ConversionError, match=r"several kinds, \.csv, \.npz; choose one with a"):
        list(find_episodes(str(folder), ""))
