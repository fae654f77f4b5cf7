"""Recordings with gaps, and with the clock of the machine or of the whole recording."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actionprior.data import DataError
from actionprior.embodiment.image_shape import ImageShape
from data_modules import LeRobotTrajectories
from data_modules.images.camera_files import CameraFiles
from data_modules.images.frames import FrameImages
from data_modules.lerobot.columns import read_columns
from tests.helpers.datasets import CAMERAS, arm, write_dataset, write_v2
from tests.helpers.vla_data import decoders, everything, module


def stamp(root: Path, change: str, kind: pa.DataType | None = None) -> Path:
    """Change the timestamps ``t`` of all frames; ``e`` is the episode and ``i`` the frame in it."""
    for path in sorted((root / "data").glob("*/*.parquet")):
        table = pq.read_table(path)
        names = {
            "t": table["timestamp"].to_numpy().astype(float),
            "e": table["episode_index"].to_numpy(),
            "i": table["frame_index"].to_numpy(),
            "np": np,
        }
        new = pa.array(eval(change, names), kind or pa.float64())  # of this file only
        place = table.schema.get_field_index("timestamp")
        pq.write_table(table.set_column(place, "timestamp", new), path)
    return root


@pytest.fixture
def sixty(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "sixty", (60, 40), cameras={CAMERAS[0]: "image"})


@pytest.mark.parametrize("hz", [10, 5, 25])
def test_a_long_gap_cuts_an_episode(hz: int, sixty: Path, caplog: pytest.LogCaptureFixture) -> None:
    stamp(sixty, "t + 50_000 * ((e == 0) & (i >= 30))")
    robot = arm(sixty, control_hz=hz, resample=True)
    columns = read_columns(sixty, robot)
    per_part = 29 * hz // 10 + 1
    assert columns.lengths_E.tolist() == [2 * per_part, 39 * hz // 10 + 1]
    assert columns.cuts == (per_part,)
    assert columns.recorded_row(per_part) == 30
    assert columns.timestamp_N[per_part] == pytest.approx(50_003)
    np.testing.assert_array_equal(columns.action_Na[per_part], columns.recorded.action_Na[30])

    with caplog.at_level("INFO", logger="lightning.pytorch"):
        data = LeRobotTrajectories([robot], 5, 3, val_fraction=0)
        data.setup("fit")
    assert "episodes are cut at 1 gaps in their timestamps that are longer than" in caplog.text
    window = data.windows(training=False).__getitems__([per_part - 2])
    assert window.step_mask_BH.tolist() == [[True, True, False, False, False]]
    assert data.split_record()["arm"]["number"] == [0, 1]

    seen = everything(
        module(sixty, chunk_length=5, val_fraction=0, chunk_seconds=5 / hz, cache_images=False)
    )
    files = CameraFiles(columns.recorded, [CAMERAS[0]])
    expected = FrameImages(files, ImageShape(32, 48), "pyav").read(0, 30, CAMERAS[0])
    assert torch.equal(seen.observation.images_BCKYX[per_part, 0], torch.from_numpy(expected))


def test_max_gap_says_what_is_long(sixty: Path) -> None:
    stamp(sixty, "t + 1.5 * (i >= 30)")
    assert read_columns(sixty, arm(control_hz=5, resample=True)).cuts == ()
    columns = read_columns(sixty, arm(control_hz=5, resample=True, max_gap=1.2))
    assert columns.cuts == (15, 45)
    assert read_columns(sixty, arm(control_hz=5, resample=True)).cuts == ()


@pytest.mark.parametrize("change", ["t * 1e300", "t * 1e-300", "np.where(i == 9, np.nan, t)"])
@pytest.mark.parametrize("hz", [1e-9, 10, 1e9])
def test_any_clock_is_read_or_refused(change: str, hz: float, sixty: Path) -> None:
    stamp(sixty, change)
    sentence, frames = "", 0
    try:
        frames = read_columns(sixty, arm(control_hz=hz, resample=True)).lengths_E.sum()
    except DataError as error:
        sentence = str(error)
    assert frames <= 100_000
    assert "\n" not in sentence


@pytest.mark.parametrize("decoder", decoders())
@pytest.mark.parametrize("change", ["1.75e9 + 100 * e + t", "t + 4 * e + 3", "t - 0.5"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_images_are_found_by_any_clock(
    version: str, change: str, decoder: str, split: Path, old: Path, tmp_path: Path
) -> None:
    source = old if version == "v2.1" else split
    options = {"cameras": CAMERAS[1:], "video_backend": decoder, "val_fraction": 0}
    options |= {"cache_images": False}
    expected = everything(module(source, **options)).observation.images_BCKYX
    root = stamp(Path(shutil.copytree(source, tmp_path / "other")), change)
    found = everything(module(root, **options)).observation.images_BCKYX
    assert torch.equal(found, expected)


def test_a_clock_that_fits_the_video_is_the_videos(split: Path, tmp_path: Path) -> None:
    """The first frames of the data were cut off, but not those of the video."""
    root = write_v2(split, tmp_path / "old")
    options = {"cameras": CAMERAS[1:], "video_backend": "pyav", "val_fraction": 0}
    options |= {"cache_images": False}
    expected = everything(module(root, **options)).observation.images_BCKYX
    lines = re.sub(
        r'(?<="length": )\d+',
        lambda length: str(int(length[0]) - 3),
        (root / "meta/episodes.jsonl").read_text(),
    )
    (root / "meta/episodes.jsonl").write_text(lines)
    info = (root / "meta/info.json").read_text()
    (root / "meta/info.json").write_text(info.replace('"total_frames": 28', '"total_frames": 19'))
    for path in sorted((root / "data").glob("*/*.parquet")):
        pq.write_table(pq.read_table(path)[3:], path)
    found = everything(module(root, **options)).observation.images_BCKYX
    assert torch.equal(found[:9], expected[3:12])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "empty"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_damaged_video_is_one_sentence_in_every_process(
    damage: str, workers: int, split: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(split, tmp_path / "damaged"))
    data = module(
        root,
        cameras=CAMERAS[1:],
        cache_images=False,
        num_workers=workers,
        video_backend="pyav",
        val_fraction=0,
    )
    for path in (root / "videos").rglob("*.mp4"):
        whole = path.read_bytes()
        part = {"cut": whole[: len(whole) // 2], "overwritten": bytes(len(whole)), "empty": b""}
        path.write_bytes(part[damage])
    with pytest.raises(DataError) as error:
        list(data.train_dataloader())
    sentence = str(error.value)
    assert sentence.startswith(str(root))
    assert "cannot be decoded (" in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
