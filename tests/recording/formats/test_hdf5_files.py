"""HDF5 in the layouts of robomimic, LIBERO and ALOHA, and files that lie or point elsewhere."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actionprior.errors import UserError
from actionprior.recording.formats import hdf5_files
from actionprior.recording.formats.episode import ConversionError
from tests.helpers.recordings_elsewhere import pictures, states

h5py = pytest.importorskip("h5py")


def robomimic(path: Path, demos: int = 11) -> Path:
    with h5py.File(path, "w") as file:
        for number in range(demos):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = states(5, number)
            demo["obs/robot0_eef_pos"] = states(5, number)
            demo["obs/robot0_eef_quat"] = np.tile([0, 0, 0, 1.0], (5, 1))
            demo["obs/robot0_gripper_qpos"] = states(5, number)[:, :2]
            demo["obs/agentview_image"] = pictures(5, episode=number)
        problem = {"language_instruction": "open the drawer"}
        file["data"].attrs["problem_info"] = json.dumps(problem)
    return path


def test_robomimics_demonstrations_are_episodes(tmp_path: Path) -> None:
    for number, episode in enumerate(hdf5_files.read_hdf5(robomimic(tmp_path / "a.hdf5"))):
        assert episode.layout.action == ["actions"]
        assert [k.removeprefix("obs/robot0_") for k in episode.layout.state] == [
            "eef_pos",
            "eef_quat",
            "gripper_qpos",
        ]
        assert episode.layout.cameras == {"agentview": "obs/agentview_image"}
        np.testing.assert_allclose(episode.vector("actions").values_Tn, states(5, number))
        (image,) = episode.pictures("obs/agentview_image").read([4])
        assert image[0, 0].tolist() == [4, 50 + number, 0]
        assert episode.instruction() == "open the drawer"
    assert number == 10


@pytest.mark.parametrize("compressed", [False, True])
def test_aloha_is_one_episode(tmp_path: Path, compressed: bool) -> None:
    images = pictures(4)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["observations/qpos"] = states(4)
        file["action"] = states(4, 1)
        file.attrs["task"] = "fold the shirt"
        if compressed:
            files = [_png(image) for image in images]
            padded = np.zeros((4, max(map(len, files))), np.uint8)
            for row, content in zip(padded, files, strict=True):
                row[: len(content)] = np.frombuffer(content, np.uint8)
            images = padded
        file["observations/images/cam_high"] = images
    for episode in hdf5_files.read_hdf5(tmp_path / "a.hdf5"):
        assert episode.layout.state == ["observations/qpos"]
        assert episode.layout.cameras == {"cam_high": "observations/images/cam_high"}
        assert episode.instruction() == "fold the shirt"
        read = list(episode.pictures("observations/images/cam_high").read([1, 3]))
        np.testing.assert_array_equal(read, pictures(4)[[1, 3]])


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def test_links_and_other_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = states(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = states(3)
        file["soft"] = h5py.SoftLink("/good")
        file["outside"] = h5py.ExternalLink("other.h5", "/x")
        file["data"] = h5py.ExternalLink("other.h5", "/")
        raw = [(str(tmp_path / "secret"), 0, 600)]
        file.create_dataset("raw", (600,), np.uint8, external=raw)
        layout = h5py.VirtualLayout((3, 3), float)
        layout[:] = h5py.VirtualSource("other.h5", "x", (3, 3))
        file.create_virtual_dataset("virtual", layout)
        file["round"] = file["/"]
    for episode in hdf5_files.read_hdf5(tmp_path / "a.h5"):
        assert {key.rpartition("/")[2] for key in list(episode.keys())} == {"good"}
        with pytest.raises(ConversionError, match="has no 'raw'"):
            episode.vector("raw")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        big: Any = {"compression": "gzip", "chunks": (1, 3000, 3000, 3), "dtype": np.uint8}
        file.create_dataset("large", (2, 3000, 3000, 3), **big)
        file.create_dataset("long", (1 << 40,), np.float64, chunks=(1024,))
    monkeypatch.setattr(hdf5_files, "MOST_CHUNK", 10**6)
    for episode in hdf5_files.read_hdf5(tmp_path / "a.h5"):
        with pytest.raises(ConversionError, match=r"'large' has the shape \(2, 3000, 3000, 3\) in"):
            episode.pictures("large")
        with pytest.raises(ConversionError, match="'long' has 1099511627776 numbers, too many"):
            episode.vector("long")


@pytest.mark.parametrize("cut", [0, 8, 100, 1000])
def test_damaged_files_are_refused(tmp_path: Path, cut: int) -> None:
    content = robomimic(tmp_path / "a.hdf5", 1).read_bytes()
    (tmp_path / "b.hdf5").write_bytes(content[:cut])
    with pytest.raises(UserError, match=r"b\.hdf5 cannot be read as HDF5"):
        list(hdf5_files.read_hdf5(tmp_path / "b.hdf5"))
