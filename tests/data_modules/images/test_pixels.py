"""Test that depth and other images of more than 8 bits are scaled as declared, or refused."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actionprior.data import DataError
from actionprior.embodiment import EmbodimentError
from data_modules import LeRobotVLA
from data_modules.images.pixels import DepthRange, to_colour, why_no_colour
from data_modules.images.video import decode_video
from data_modules.lerobot.description import describe
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm
from tests.helpers.vla_data import decoders

FRONT = CAMERAS[0]
MM = np.array([[0, 100, 1049], [2000, 2001, 65535]], np.uint16)
SHARES = np.array([[0, 0, 0.4995], [1, 1, 1]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_of_eight_bits_are_converted(mode: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([ramp] * 3, -1)).convert(mode)
    found = to_colour(image)
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("values", [MM, MM.astype(np.int32), MM.astype(np.float32) / 1000])
def test_more_bits_are_scaled_by_the_declared_range_or_refused(values: Any) -> None:
    image = Image.fromarray(values)
    with pytest.raises(ValueError, match=r"bits per value .*set depth_ranges on the robot"):
        to_colour(image)
    found = to_colour(image, DepthRange(0.1, 2.0))
    np.testing.assert_array_equal(found, np.repeat(np.round(255 * SHARES)[..., None], 3, -1))
    assert found.dtype == np.uint8


def test_the_recorded_unit_of_depth_counts() -> None:
    image = Image.fromarray(np.full((2, 2), 1500, np.float32))
    assert to_colour(image, DepthRange(1.0, 2.0, "mm")).max() == 128
    assert to_colour(image, DepthRange(1.0, 2.0, "m")).min() == 255
    holes = Image.fromarray(np.full((2, 2), np.nan, np.float32))
    assert to_colour(holes, DepthRange(1.0, 2.0, "m")).max() == 0


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        ({"shape": [48, 64, 3]}, ""),
        ({"shape": [3, 48, 64]}, ""),
        ({"shape": [48, 64, 4]}, ""),
        ({"shape": [48, 64, 1]}, "images of 1 channel"),
        ({"shape": [1, 48, 64]}, "images of 1 channel"),
        ({"shape": [48, 64]}, "images of 1 channel"),
        ({"shape": [48, 64, 2]}, "images of 2 channels"),
        ({"shape": [48, 64, 3], "info": {"is_depth_map": True}}, "depth maps"),
        ({"shape": [48, 64, 3], "info": {"video.is_depth_map": True}}, "depth maps"),
        ({"shape": [48, 64, 3], "video_info": {"video.is_depth_map": True}}, "depth maps"),
        ({"shape": [48, 64, 3], "info": {"video.pix_fmt": "gray12le"}}, "video in gray12le"),
        ({"shape": [48, 64, 3], "info": {"video.pix_fmt": "yuv420p10le"}}, ""),
        ({"shape": [48, 64, 3], "info": None}, ""),
    ],
)
def test_metadata_say_which_cameras_are_no_colour(feature: Any, reason: str) -> None:
    assert why_no_colour(feature) == reason


def edited(root: Path, at: Path, image: Any, **feature: Any) -> Path:
    """Copy a dataset, and replace the images of a camera and parts of its description."""
    shutil.copytree(root, at)
    info = json.loads((at / "meta/info.json").read_text())
    info["features"][FRONT] |= feature
    (at / "meta/info.json").write_text(json.dumps(info))
    if image is not None:
        out = io.BytesIO()
        image.save(out, "TIFF")
        path = next((at / "data").glob("*/*.parquet"))
        table = pq.read_table(path)
        place = table.schema.get_field_index(FRONT)
        cells = [{"bytes": out.getvalue(), "path": "x.tiff"}] * len(table)
        column = pa.array(cells, table.schema.field(FRONT).type)
        pq.write_table(table.set_column(place, FRONT, column), path)
    return at


def vla(root: Path, **robot: Any) -> LeRobotVLA:
    data = LeRobotVLA(
        [arm(root, cameras=(FRONT,), **robot)],
        batch_size=4,
        images=ImageSettings(cache_images=False),
    )
    data.setup("fit")
    return data


def test_depth_is_no_camera_of_a_description_and_trains_in_its_range(
    seen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    depth = Image.fromarray(np.tile(MM, (16, 16)))
    facts = {"shape": [32, 48, 1], "info": {"is_depth_map": True, "depth_unit": "mm"}}
    root = edited(seen, tmp_path / "depth", depth, **facts)
    assert describe(str(root)).robot["cameras"] == [CAMERAS[1]]
    with pytest.raises(DataError, match=rf"camera '{FRONT}' records depth, which is no colour"):
        vla(root)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        data = vla(root, depth_ranges={FRONT: (0.1, 2.0)})
    assert "depth from 0.1 to 2 m becomes 0 to 255" in caplog.text
    (image,) = data.windows(training=False).__getitems__([3]).observation.images_BCKYX[0].numpy()
    np.testing.assert_array_equal(image[0], np.round(255 * np.tile(SHARES, (16, 16))))
    np.testing.assert_array_equal(image[0], image[2])


def test_wide_images_that_nobody_declares_are_refused(seen: Path, tmp_path: Path) -> None:
    """Metadata may claim colours."""
    root = edited(seen, tmp_path / "wide", Image.fromarray(np.tile(MM, (16, 16))))
    data = vla(root)
    with pytest.raises(DataError, match=r"cannot be decoded \(.*bits per value.*depth_ranges"):
        data.windows(training=False).__getitems__([3])


def test_grey_cameras_train_and_are_reported(
    seen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grey = Image.fromarray(np.full((32, 48), 77, np.uint8))
    root = edited(seen, tmp_path / "grey", grey, shape=[32, 48, 1])
    assert describe(str(root)).robot["cameras"] == [CAMERAS[1]]
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        data = vla(root)
    assert "images of 1 channel become grey colours" in caplog.text
    assert (data.windows(training=False).__getitems__([3]).observation.images_BCKYX == 77).all()


def test_depth_videos_are_refused(seen: Path, tmp_path: Path) -> None:
    root = edited(seen, tmp_path / "depth", None, dtype="video", info={"is_depth_map": True})
    with pytest.raises(DataError, match=r"remove it from the robot's cameras, or record it as im"):
        vla(root, depth_ranges={FRONT: (0.1, 2.0)})


@pytest.mark.parametrize("decoder", decoders())
def test_a_video_of_one_wide_channel_is_refused(decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "depth.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "gray16le"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64), 900, np.uint16), format="gray16le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"one channel of 16 bits \(gray16le\), as depth has"):
        list(decode_video(str(path), [0.1], 0.05, decoder))


@pytest.mark.parametrize("depth_ranges", [{FRONT: (2, 1)}, {FRONT: (-1, 1)}, {"other": (0, 1)}])
def test_a_wrong_range_is_refused(depth_ranges: Any) -> None:
    with pytest.raises(EmbodimentError, match="depth_ranges has"):
        arm(cameras=(FRONT,), depth_ranges=depth_ranges)
