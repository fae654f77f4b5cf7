"""CSV files with images in files, folders and videos beside them."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from actionprior.recording.formats.csv_files import read_csv
from actionprior.recording.formats.episode import ConversionError, SourceEpisode
from tests.helpers.recordings_elsewhere import pictures, write_csv, write_pictures


def one(path: Path, episode_key: str = "") -> SourceEpisode:
    (episode,) = read_csv(path, episode_key)
    return episode


def test_a_column_numbers_the_episodes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", {"e": [4, 4, 7], "x": [0, 1, 2], " y": [5, 6, 7]})
    first, second = read_csv(path, "e")
    assert first.vector("x").values_Tn.tolist() == [[0], [1]]
    assert second.vector("*y").values_Tn.tolist() == [[7]]
    assert second.name.endswith("a.csv, e 7")
    with pytest.raises(ConversionError, match="no column 'f'"):
        list(read_csv(path, "f"))
    path = write_csv(tmp_path / "a.csv", {"e": [4, 4, ""], "x": [0, 1, 2]})
    with pytest.raises(ConversionError, match=r"a\.csv: line 4 has no 'e'"):
        list(read_csv(path, "e"))


def test_images_are_named_or_lie_in_a_folder(tmp_path: Path) -> None:
    names = write_pictures(tmp_path / "a_front", pictures(12))
    path = write_csv(tmp_path / "a.csv", {"front": [f"a_front/{name}" for name in names]})
    for key in ("front", "{stem}_front"):  # 10.png comes after 9.png
        found = one(path).pictures(key)
        assert found.length == 12
        assert [int(i[0, 0, 0]) for i in found.read([0, 2, 2, 11])] == [0, 2, 2, 11]


def test_a_video_is_decoded(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a_front.mp4"), "w") as file:
        stream = file.add_stream("libx264", 10, options={"qp": "0"})
        stream.width, stream.height = 32, 24
        for image in 8 * pictures(10):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    found = one(write_csv(tmp_path / "a.csv", {"x": range(10)})).pictures("{stem}_front.mp4")
    assert found.length == 10
    reds = np.array([image[..., 0].mean() for image in found.read([1, 1, 5, 9])])
    assert np.abs(reds - [8, 8, 40, 72]).max() < 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as CSV"),
        (b"a,b\n", "has no line of values"),
        (b"\xff\xfe\0\0", "cannot be read as CSV"),
        (b"a,b\n1,2\n1,2,3\n", "cannot be read as CSV"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        list(read_csv(tmp_path / "a.csv", ""))


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "link.png", "fifo", "", "x\x1b"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    import os

    write_pictures(tmp_path / "out", pictures(1))
    (tmp_path / "out/0.png").rename(tmp_path / "secret.png")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(inside / "fifo")
    episode = one(write_csv(inside / "a.csv", {"front": [name, "b"], "x": [0, 1]}))
    with pytest.raises(ConversionError, match="is no file below") as e:
        list(episode.pictures("front").read([0]))
    assert str(e.value).isprintable()


def test_other_formats_of_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    episode: Any = one(write_csv(tmp_path / "a.csv", {"front": ["a.eps"]}))
    with pytest.raises(ValueError, match="cannot be read as an image"):
        list(episode.pictures("front").read([0]))
