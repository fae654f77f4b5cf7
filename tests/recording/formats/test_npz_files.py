"""npz files are read without unpickling."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actionprior.recording.formats import npz_files
from actionprior.recording.formats.episode import ConversionError, SourceEpisode
from tests.helpers.recordings_elsewhere import pictures, states


class Bomb:
    def __reduce__(self) -> Any:
        return (open, ("unpickled", "w"))


def one(path: Path) -> SourceEpisode:
    (episode,) = npz_files.read_npz(path)
    return episode


def first(path: Path, key: str) -> Any:
    for episode in npz_files.read_npz(path):
        return episode.vector(key).values_Tn


def test_vectors_images_and_the_task(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    first_channels = pictures(4).transpose(0, 3, 1, 2)
    np.savez_compressed(path, qpos=states(4), grip=np.ones(4), front=first_channels, task="reach")
    for episode in npz_files.read_npz(path):
        assert episode.vector("qpos").names == ["qpos_0", "qpos_1", "qpos_2"]
        assert episode.vector("grip").names == ["grip"]
        (image,) = episode.pictures("front").read([3])
        np.testing.assert_array_equal(image, pictures(4)[3])
        assert episode.instruction() == "reach"


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.array([Bomb()], dtype=object))
    with pytest.raises(ConversionError, match=r"'x' cannot be read; arrays of objects are not"):
        first(Path("a.npz"), "x")
    Path("b.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConversionError, match=r"b\.npz cannot be read as npz"):
        first(Path("b.npz"), "x")
    assert not Path("unpickled").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000)))
    monkeypatch.setattr(npz_files, "MOST_BYTES", 10**6)
    with pytest.raises(ConversionError, match=r"'x' unpacks to 8000\d+ bytes"):
        first(tmp_path / "a.npz", "x")


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2, 2)), y=np.array(["a"]), z=np.zeros((3, 4, 5)))
    np.save(tmp_path / "b.npz", np.zeros(3))
    (tmp_path / "b.npz.npy").rename(tmp_path / "b.npz")
    for key, message in (("x", "has the shape"), ("y", "expected numbers"), ("w", "has no 'w'")):
        with pytest.raises(ConversionError, match=message):
            first(tmp_path / "a.npz", key)
    with pytest.raises(ConversionError, match="is a single array"):
        one(tmp_path / "b.npz")
    for episode in npz_files.read_npz(tmp_path / "a.npz"):
        with pytest.raises(ConversionError, match=r"expected \(samples, rows, columns, 3\)"):
            episode.pictures("z")
