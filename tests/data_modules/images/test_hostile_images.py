"""Images and cameras of a stranger's dataset write nothing outside the cache and read nothing."""

import io
import json
import os
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actionprior.data import DataError
from data_modules.images import frames
from data_modules.images.video import decode_video, frame_bytes
from tests.helpers.datasets import CAMERAS, write_dataset
from tests.helpers.vla_data import everything, module

FRONT = CAMERAS[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "set", (6,), cameras={FRONT: "image"})


def picture(size: tuple[int, int] = (48, 32), kind: str = "PNG", red: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def put_cells(root: Path, cells: list[object], camera: str = FRONT) -> None:
    """Replace the images of the data file."""
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    place = table.schema.get_field_index(FRONT)
    pq.write_table(table.set_column(place, camera, pa.array(cells, kind)), path)


def rename_camera(root: Path, name: str) -> None:
    info = root / "meta" / "info.json"
    content = json.loads(info.read_text())
    content["features"][name] = content["features"].pop(FRONT)
    info.write_text(json.dumps(content))
    put_cells(root, [{"bytes": picture(), "path": None}] * 6, name)


@pytest.mark.parametrize("camera", ["../../outside", "top/left", "{}/absolute", "."])
def test_any_camera_name_stays_in_the_cache(root: Path, tmp_path: Path, camera: str) -> None:
    camera = camera.format(tmp_path)
    target = tmp_path / "absolute" / "episode_000000.npy"
    target.parent.mkdir()
    target.write_text("mine")
    rename_camera(root, camera)
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.parts}
    data = module(root, cameras=(camera,), cache_dir=str(tmp_path / "cache"), val_fraction=0)
    everything(data)
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} == before
    assert target.read_text() == "mine"
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


@pytest.mark.parametrize("kind", frames.PICTURES)
def test_images_may_be_files_of_the_dataset(root: Path, tmp_path: Path, kind: str) -> None:
    (root / "images").mkdir()
    (root / "images/a").write_bytes(picture(kind=kind, red=255))
    put_cells(root, [{"bytes": None, "path": "images/a"}] * 6)
    data = module(root, cache_dir=str(tmp_path / "cache"), val_fraction=0)
    images = everything(data).observation.images_BCKYX
    assert images[:, 0, 0].float().mean() > 0.9 * images.max()


def test_images_elsewhere_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(root / "pipe")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "pipe", "gone.png"):
        put_cells(root, [{"bytes": None, "path": name}] * 6)
        with pytest.raises(DataError, match="cannot be decoded") as error:
            module(root, cache_dir=str(tmp_path / "cache"), val_fraction=0)
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}])
def test_empty_cells_are_refused(root: Path, tmp_path: Path, cell: object) -> None:
    put_cells(root, [cell] * 6)
    with pytest.raises(DataError, match="holds neither an image nor the name of one"):
        module(root, cache_dir=str(tmp_path / "cache"), val_fraction=0)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "BMP", "PPM"])
def test_other_formats_are_not_opened(root: Path, tmp_path: Path, kind: str) -> None:
    put_cells(root, [{"bytes": picture(kind=kind), "path": None}] * 6)
    with pytest.raises(DataError, match="cannot identify image file"):
        module(root, cache_dir=str(tmp_path / "cache"), val_fraction=0)


def test_a_large_image_that_claims_to_be_small_is_refused_before_it_is_decoded(
    root: Path, tmp_path: Path
) -> None:
    put_cells(root, [{"bytes": picture((5000, 5000)), "path": None}] * 6)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"5000 rows and 5000 columns, .*info\.json says 32 and 48"):
        module(root, cache_dir=str(tmp_path / "cache"), val_fraction=0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize("template", ["../../../etc/passwd", "/etc/passwd", "{x.__class__}", 3])
def test_templates_that_lead_out_are_refused(tmp_path: Path, key: str, template: object) -> None:
    kind = "image" if key == "data_path" else "video"
    root = write_dataset(tmp_path / "set", (6,), cameras={FRONT: kind})
    info = root / "meta" / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {key: template}))
    with pytest.raises(DataError, match=r"leads out of the dataset|path template"):
        module(root, cache_dir=str(tmp_path / "cache"), val_fraction=0)


def test_a_video_that_is_a_list_of_files_is_not_followed(tmp_path: Path) -> None:
    for content in (
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    ):
        for suffix in ("mp4", "m3u8"):
            path = tmp_path / f"list.{suffix}"
            path.write_text(content)
            with pytest.raises(Exception, match=r"Invalid data|whitelist|Invalid argument"):
                list(decode_video(str(path), [0.0], 0.1, "pyav"))


def test_large_frames_are_decoded_a_few_at_a_time(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_dataset(tmp_path / "video", (9,), cameras={FRONT: "video"})
    (path,) = video.rglob("*.mp4")
    times = (np.arange(9) / 10).tolist()
    assert frame_bytes(str(path)) == 3 * 32 * 48
    at_once = list(decode_video(str(path), times, 0.05, "pyav"))
    monkeypatch.setattr("data_modules.images.video.CHUNK_BYTES", 2 * 32 * 48 * 3)
    few = list(decode_video(str(path), times, 0.05, "pyav"))
    assert [len(part) for part in at_once] == [9]
    assert [len(part) for part in few] == [3, 3, 3]
    np.testing.assert_array_equal(np.concatenate(few), np.concatenate(at_once))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_is_the_same_sentence(
    root: Path, tmp_path: Path, workers: int
) -> None:
    data = module(root, val_fraction=0, cache_images=False, num_workers=workers)
    put_cells(root, [{"bytes": b"no image", "path": None}] * 6)
    with pytest.raises(DataError) as error:
        next(iter(data.train_dataloader()))
    sentence = str(error.value)
    assert sentence.startswith(f"{root}/data/")
    assert "frames" in sentence
    assert "cannot be decoded (cannot identify image file" in sentence
    assert "\n" not in sentence
