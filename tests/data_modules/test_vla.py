"""Stage 2 data: what a policy sees equals what lerobot decodes, also through the cache."""

import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actionprior.batch import VLABatch
from actionprior.data import DataError
from actionprior.embodiment.image_shape import ImageShape
from data_modules import LeRobotVLA
from data_modules.images.camera_files import CameraFiles
from data_modules.images.frames import FrameImages
from data_modules.images.mapped_files import max_mapped_files
from data_modules.lerobot.columns import LeRobotEmbodiment, read_columns
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm, write_dataset, write_v2
from tests.helpers.vla_data import decoders, everything, module

FRONT, WRIST = CAMERAS


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    ("camera", "backend"), [(FRONT, "pyav"), *((WRIST, decoder) for decoder in decoders())]
)
def test_images_equal_lerobots(
    camera: str, backend: str, cache: bool, seen: Path, tmp_path: Path
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    options = {"cache_images": cache, "cache_dir": str(tmp_path), "video_backend": backend}
    batch = everything(module(seen, cameras=(camera,), val_fraction=0, **options))
    reference = LeRobotDataset("seen", root=seen, video_backend=backend)
    assert batch.observation.images_BCKYX.dtype == torch.uint8
    for i in range(len(reference)):
        expected = (reference[i][camera] * 255).round().to(torch.uint8)
        assert torch.equal(batch.observation.images_BCKYX[i, 0], expected)
        assert batch.observation.task[i] == reference[i]["task"]


def test_cameras_are_resized_to_one_size_in_the_embodiments_order(
    seen: Path, tmp_path: Path
) -> None:
    data = module(seen, cameras=(WRIST, FRONT), image_size=(16, 24), cache_dir=str(tmp_path))
    images = everything(data).observation.images_BCKYX
    assert images.shape == (28, 2, 3, 16, 24)
    single = module(seen, cameras=(FRONT,), image_size=(16, 24), cache_dir=str(tmp_path))
    assert torch.equal(everything(single).observation.images_BCKYX[:, 0], images[:, 1])
    with pytest.raises(
        DataError, match=r"cameras differ in size.*set --data.images.image_size \d+,"
    ):
        module(seen, cameras=(WRIST, FRONT), cache_dir=str(tmp_path))


@pytest.mark.parametrize("cache", [True, False])
def test_resampled_frames_show_the_image_last_seen(cache: bool, seen: Path, tmp_path: Path) -> None:
    options = {"cache_images": cache, "cache_dir": str(tmp_path), "val_fraction": 0}
    recorded = everything(module(seen, **options)).observation
    data = module(seen, chunk_length=5, chunk_seconds=1.25, **options)  # 4 Hz instead of 10
    assert [robot.control_hz for robot in data.embodiments] == [4]
    slow = everything(data).observation
    first = [0, 2, 5, 7, 10]  # of the episode's 12 frames, at 0, 0.25, 0.5, 0.75 and 1 s
    assert torch.equal(slow.images_BCKYX[:5], recorded.images_BCKYX[first])
    assert torch.equal(slow.state_BS[::2][:3], recorded.state_BS[[0, 5, 10]])
    assert slow.task[5] == recorded.task[12]


def test_state_history_and_future_belong_together(seen: Path, tmp_path: Path) -> None:
    data = module(seen, cache_dir=str(tmp_path), val_fraction=0)
    batch, store = everything(data), data.frames.store
    seen_now, future = batch.observation, batch.future
    assert torch.equal(seen_now.state_BS, store.states(torch.arange(28)))
    assert torch.equal(seen_now.state_BS, future.state_BHS[:, 0])
    assert torch.equal(seen_now.reference_BA, future.reference_BA)
    assert seen_now.history.action_BHA.shape == (28, 3, 37)
    # Episodes of 12, 7 and 9 steps: their first frames have no past, their second one step.
    steps = seen_now.history.step_mask_BH.sum(1).tolist()
    assert steps == [min(t, 3) for n in (12, 7, 9) for t in range(n)]
    assert torch.equal(seen_now.history.state_BHS[5], store.states(torch.arange(2, 5)))


def test_a_robot_with_fewer_cameras_is_masked(seen: Path, tmp_path: Path) -> None:
    robots = [arm(seen, name="two", cameras=CAMERAS), arm(seen, name="one", cameras=(WRIST,))]
    images = ImageSettings(image_size=16, cache_dir=str(tmp_path))
    data = LeRobotVLA(robots, images=images, val_fraction=0)
    data.setup("fit")
    observation = everything(data).observation
    assert observation.camera_mask_BC.tolist() == [[True, True]] * 28 + [[True, False]] * 28
    assert (observation.images_BCKYX[28:, 1] == 0).all()
    assert torch.equal(observation.images_BCKYX[28:, 0], observation.images_BCKYX[:28, 1])


def test_loader_yields_typed_batches_also_from_workers(seen: Path, tmp_path: Path) -> None:
    plain = list(module(seen, cache_dir=str(tmp_path)).train_dataloader())
    worked = list(module(seen, cache_dir=str(tmp_path), num_workers=2).train_dataloader())
    assert len(plain) == len(worked) > 1
    for a, b in zip(plain, worked, strict=True):
        assert isinstance(b, VLABatch)
        assert a.observation.task == b.observation.task
        assert torch.equal(a.observation.images_BCKYX, b.observation.images_BCKYX)


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    decode = FrameImages.frames
    monkeypatch.setattr(
        FrameImages,
        "frames",
        lambda self, episode, camera, rows: (
            calls.append(episode),
            decode(self, episode, camera, rows),
        )[1],
    )
    return calls


def test_each_episode_is_decoded_once_and_only_if_used(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_decodes(monkeypatch)
    first = everything(module(seen, cache_dir=str(tmp_path), max_episodes=2, val_fraction=0))
    assert calls == [0, 1]
    again = everything(module(seen, cache_dir=str(tmp_path), max_episodes=2, val_fraction=0))
    assert calls == [0, 1]
    assert torch.equal(first.observation.images_BCKYX, again.observation.images_BCKYX)
    module(seen, cache_dir=str(tmp_path))
    assert calls == [0, 1, 2]
    module(seen, cache_dir=str(tmp_path), image_size=16)
    assert calls == [0, 1, 2, 0, 1, 2]


def test_a_changed_dataset_is_decoded_again(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(seen, tmp_path / "copy"))
    calls = count_decodes(monkeypatch)
    module(root, cache_dir=str(tmp_path / "cache"))
    data_file = next((root / "data").glob("*/*.parquet"))
    os.utime(data_file, (1, 1))
    module(root, cache_dir=str(tmp_path / "cache"))
    assert calls == [0, 1, 2, 0, 1, 2]


def test_a_killed_fill_leaves_nothing_that_looks_whole(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = FrameImages.frames

    def fail_late(self, episode, camera, rows):
        if episode == 1:
            raise KeyboardInterrupt
        return decode(self, episode, camera, rows)

    monkeypatch.setattr(FrameImages, "frames", fail_late)
    with pytest.raises(KeyboardInterrupt):
        module(seen, cache_dir=str(tmp_path))
    left = [p.name for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != ".locks"]
    assert left == ["episode_000000.npy"]
    monkeypatch.undo()
    calls = count_decodes(monkeypatch)
    module(seen, cache_dir=str(tmp_path))
    assert calls == [1, 2]


def test_cache_is_where_the_environment_says(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "here"))
    module(seen)
    arrays = sorted((tmp_path / "here").rglob("*.npy"))
    assert [np.load(a, mmap_mode="r").shape for a in arrays] == [
        (12, 3, 32, 48), (7, 3, 32, 48), (9, 3, 32, 48)
    ]  # fmt: skip


def test_a_missing_camera_is_rejected(seen: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no camera 'observation\.images\.top'; it has \['obs"):
        module(seen, cameras=("observation.images.top",))
    root = Path(shutil.copytree(seen, tmp_path / "lost"))
    shutil.rmtree(root / "videos")
    message = r"video file videos/.*\.mp4 of camera .*wrist', episode 0, is missing"
    with pytest.raises(DataError, match=message):
        module(root, cameras=(WRIST,))
    with pytest.raises(DataError, match="no episode has the video of every camera"):
        module(root, cameras=(WRIST,), skip_missing_videos=True)
    with pytest.raises(DataError, match="'arm' names no camera"):
        LeRobotVLA([arm(seen)])


def test_a_damaged_video_is_rejected(seen: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(seen, tmp_path / "damaged"))
    next((root / "videos").rglob("*.mp4")).write_bytes(b"no video")
    with pytest.raises(DataError, match=r"\.mp4: frames 0 to 11 of episode 0 cannot be decoded"):
        module(root, cameras=(WRIST,), cache_dir=str(tmp_path))


def test_a_video_that_was_written_frame_by_frame_is_read_so_in_older_formats(
    old: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(old, tmp_path / "slow"))
    for path in (root / "data").rglob("*.parquet"):  # the clock was slower than the stated rate
        table = pq.read_table(path)
        place, kind = table.schema.names.index("timestamp"), table.schema.field("timestamp").type
        slow = pa.array(1.5 * table["timestamp"].to_numpy()).cast(kind)
        pq.write_table(table.set_column(place, "timestamp", slow), path)
    options = {"cameras": (WRIST,), "cache_dir": str(tmp_path), "val_fraction": 0}
    expected = everything(module(old, **options)).observation.images_BCKYX
    robot = arm(root, cameras=(WRIST,), resample=True, control_hz=20)
    data = LeRobotVLA(
        [robot],
        chunk_length=2,
        history_length=1,
        images=ImageSettings(cache_dir=str(tmp_path)),
        val_fraction=0,
    )
    data.prepare_data()
    data.setup("fit")
    found = everything(data).observation.images_BCKYX
    assert {frame.sum().item() for frame in found} <= {frame.sum().item() for frame in expected}
    assert len(found) == sum(3 * (n - 1) + 1 for n in (12, 7, 9))


def test_first_demonstrations_of_each_task(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "many", (4, 5, 6, 7), cameras={FRONT: "image"})
    data = module(root, max_episodes_per_task=1, val_fraction=0, cache_dir=str(tmp_path))
    assert len(everything(data).observation.task) == 4 + 5
    assert set(everything(data).observation.task) == {"push the cube", "lift the cube"}


@pytest.mark.parametrize(("version", "cache"), [("v2.1", True), ("v2.1", False), ("v2.0", True)])
def test_older_formats_give_what_v30_gives(
    version: str, cache: bool, split: Path, tmp_path: Path
) -> None:
    old = write_v2(split, tmp_path / "old", version)
    options = {"cameras": CAMERAS, "image_size": (32, 48), "val_fraction": 0}
    expected = everything(module(split, cache_dir=str(tmp_path), **options))
    found = everything(module(old, cache_dir=str(tmp_path), cache_images=cache, **options))
    assert torch.equal(found.observation.images_BCKYX, expected.observation.images_BCKYX)
    assert found.observation.task == expected.observation.task


def test_an_older_format_may_name_chunks_as_v30_does(old: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(old, tmp_path / "renamed"))
    info = root / "meta" / "info.json"
    info.write_text(info.read_text().replace("episode_chunk", "chunk_index"))
    options = {"cameras": (WRIST,), "cache_dir": str(tmp_path), "val_fraction": 0}
    assert len(everything(module(root, **options)).future.embodiment_B) == 12 + 7 + 9


def test_episodes_without_a_video_are_an_error_or_left_out_on_purpose(
    old: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(old, tmp_path / "lost"))
    (root / "videos" / "chunk-000" / WRIST / "episode_000001.mp4").unlink()
    options = {"cameras": (WRIST,), "cache_dir": str(tmp_path), "val_fraction": 0}
    message = r"chunk-000/.*episode_000001\.mp4 .* episode 1, is missing; of 3 episodes 1 lack one"
    with pytest.raises(
        DataError, match=message + r" \(1\): set --data.images.skip_missing_videos true"
    ):
        module(root, **options)
    # Only what is used has to be there.
    assert len(everything(module(root, max_episodes=1, **options)).future.embodiment_B) == 12
    options["skip_missing_videos"] = True
    assert len(everything(module(root, **options)).future.embodiment_B) == 12 + 9
    few = module(root, max_episodes=2, **options)
    assert len(everything(few).future.embodiment_B) == 12 + 9


def test_info_without_paths_of_videos_is_rejected(old: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(old, tmp_path / "vague"))
    path = root / "meta" / "info.json"
    path.write_text(path.read_text().replace("{episode_chunk:03d}", "{chunk:03d}"))
    with pytest.raises(DataError, match=r"vague: .* the video_path of episode 0 \('chunk' is miss"):
        module(root, cameras=(WRIST,))


def cached_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*.npy"))


def test_images_beyond_the_bound_are_decoded_at_each_access_with_a_warning(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = everything(module(seen, cache_dir=str(tmp_path / "whole"), val_fraction=0))
    needed = cached_bytes(tmp_path / "whole")
    options = {"cache_dir": str(tmp_path / "part"), "cache_gb": 0.75 * needed / 1e9}
    message = r"take 0\.00013 GB and cache_gb is 9\.71e-05: 1 of its 3 episodes .* each access"
    with pytest.warns(UserWarning, match=message):
        data = module(seen, val_fraction=0, **options)
    calls = count_decodes(monkeypatch)
    images = everything(data).observation.images_BCKYX
    assert torch.equal(images, whole.observation.images_BCKYX)
    assert calls == [2] * 9
    assert 0 < cached_bytes(tmp_path / "part") <= 0.75 * needed
    # Another run, of another size, takes the room.
    module(seen, val_fraction=0, image_size=16, **options)
    assert cached_bytes(tmp_path / "part") <= 0.75 * needed
    assert torch.equal(everything(data).observation.images_BCKYX, images)
    with pytest.raises(DataError, match=r"cache_gb is 1\.0 with cache_images False, expected"):
        module(seen, cache_images=False, cache_gb=1.0)


def test_a_damaged_cache_gives_no_wrong_sample(
    seen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"cache_dir": str(tmp_path), "val_fraction": 0}
    expected = everything(module(seen, **options)).observation.images_BCKYX
    first, second, _ = sorted(tmp_path.rglob("*.npy"))
    first.write_bytes(first.read_bytes()[:-100])
    content = bytearray(second.read_bytes())
    content[-3000] ^= 16
    second.write_bytes(content)
    calls = count_decodes(monkeypatch)
    data = module(seen, **options)
    assert calls == [0]
    assert torch.equal(everything(data).observation.images_BCKYX, expected)
    assert "episode_000001.npy: image 6 is damaged; the episode is decoded again" in caplog.text
    module(seen, **options)
    assert calls == [0, 1, 1]


@pytest.mark.parametrize("trust", [True, False])
def test_a_video_written_frame_by_frame_goes_by_its_rate(trust: bool, tmp_path: Path) -> None:
    """Its rows are its frames, whatever a slower clock says of them."""
    root = write_dataset(tmp_path / "slow", (30, 30), cameras={FRONT: "video"})
    straight = reader(root, arm(cameras=(FRONT,)))
    path = next((root / "data").glob("*/*.parquet"))
    table = pq.read_table(path)
    times = pa.array(table["timestamp"].to_numpy() * 1.08, pa.float32())
    pq.write_table(
        table.set_column(table.schema.get_field_index("timestamp"), "timestamp", times), path
    )
    slow = reader(root, arm(cameras=(FRONT,), trust_fps=trust, resample=not trust))
    for row in (0, 10, 29):  # by the clock the last one would be of the second episode
        np.testing.assert_array_equal(slow.read(0, row, FRONT), straight.read(0, row, FRONT))


def reader(root: Path, robot: LeRobotEmbodiment) -> FrameImages:
    files = CameraFiles(read_columns(root, robot).recorded, [FRONT])
    return FrameImages(files, ImageShape(*files.size(FRONT)), "pyav")


@pytest.mark.parametrize("names", [None, ["c", "h", "w"], ["channels", "height", "width"]])
def test_channels_may_come_first(names: list[str] | None, seen: Path) -> None:
    columns = read_columns(seen, arm(cameras=(FRONT,)))
    files = CameraFiles(columns, [FRONT])
    assert files.size(FRONT) == (32, 48)
    columns.info["features"][FRONT] |= {"shape": [3, 32, 48], "names": names}
    assert files.size(FRONT) == (32, 48)


def test_as_many_files_are_mapped_as_the_system_lets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        most = max_mapped_files()
        assert most <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        assert most > 128 or hard <= 256  # the limit was raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
