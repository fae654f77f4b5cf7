"""Test videos that stay on a remote storage: samples equal those of a complete local copy."""

import shutil
from pathlib import Path

import fsspec
import httpx
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from huggingface_hub.errors import RevisionNotFoundError
from torch import Tensor

from actionprior.data import DataError
from actionprior.training.settings import grouped_settings
from data_modules import LeRobotVLA
from data_modules.images.frames import FrameImages
from data_modules.lerobot.hub import locate
from data_modules.lerobot.remote import hub_snapshot_url
from tests.helpers.datasets import CAMERAS, DATA_GROUPS, arm
from tests.helpers.vla_data import decoders, everything

WRIST = CAMERAS[1]


@pytest.fixture(params=["seen", "old"])
def dataset(request: pytest.FixtureRequest) -> Path:
    """A dataset of format v3.0, and one of v2.1."""
    return Path(request.getfixturevalue(request.param))


def without_videos(source: Path, root: Path) -> Path:
    return Path(shutil.copytree(source, root, ignore=shutil.ignore_patterns("videos")))


@pytest.fixture
def bucket(dataset: Path) -> str:
    """Put the dataset's videos into fsspec's memory."""
    fsspec.filesystem("memory").put(str(dataset / "videos"), "/bucket/set/videos", recursive=True)
    yield "memory://bucket/set"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def images(root: Path, folder: Path, urls: list[str], **options) -> Tensor:
    options = {"cache_dir": str(folder), "image_size": (32, 48), "val_fraction": 0, **options}
    robot = arm(root, cameras=(WRIST,), video_urls=urls)
    data = LeRobotVLA(
        [robot], chunk_length=5, batch_size=4, **grouped_settings(options, DATA_GROUPS)
    )
    data.prepare_data()
    data.setup("fit")
    return everything(data).observation.images_BCKYX


@pytest.mark.parametrize("decoder", decoders())
@pytest.mark.parametrize("options", [{}, {"cache_images": False}, {"cache_gb": 1e-4}])
@pytest.mark.filterwarnings("ignore:the decoded images of this run take")
def test_samples_equal_those_of_a_local_copy(
    options: dict, decoder: str, dataset: Path, bucket: str, tmp_path: Path
) -> None:
    root = without_videos(dataset, tmp_path / "light")
    options = {"video_backend": decoder, **options}
    expected = images(dataset, tmp_path / "whole", [], video_backend=decoder)
    for url in (bucket, f"{bucket}/", dataset.as_uri()):
        assert torch.equal(images(root, tmp_path / "cache", [url], **options), expected)
    assert not (root / "videos").exists()


def test_replaced_remote_videos_are_decoded_again(
    dataset: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = without_videos(dataset, tmp_path / "light")
    decoded: list[int] = []
    frames = FrameImages.frames
    monkeypatch.setattr(
        FrameImages,
        "frames",
        lambda self, e, *more: (decoded.append(e), frames(self, e, *more))[1],
    )
    images(root, tmp_path, [bucket])
    images(root, tmp_path, [bucket])
    assert decoded == [0, 1, 2]
    storage = fsspec.filesystem("memory")
    path = storage.find("/bucket/set/videos")[0]
    storage.pipe_file(path, storage.cat_file(path))
    images(root, tmp_path, [bucket])
    assert decoded == [0, 1, 2] * 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/set", "nosuch://bucket/set: videos cannot be read there"),
        ("http://127.0.0.1:9/set", r"http://127\.0\.0\.1:9/set: videos cannot be read"),
        ("memory://empty", "memory://empty: videos cannot be read there .FileNotFoundError: "),
    ],
)
def test_a_url_without_videos_is_reported(
    url: str, message: str, dataset: Path, tmp_path: Path
) -> None:
    root = without_videos(dataset, tmp_path / "light")
    with pytest.raises(DataError, match=message) as error:
        images(root, tmp_path, [url])
    assert "\n" not in str(error.value)


def test_a_damaged_video_is_reported_with_its_url(
    dataset: Path, bucket: str, tmp_path: Path
) -> None:
    root = without_videos(dataset, tmp_path / "light")
    storage = fsspec.filesystem("memory")
    for path in storage.find("/bucket"):
        storage.pipe_file(path, b"no video")
    message = r"memory://bucket/set/videos/.*\.mp4: frames 0 to 11 of episode 0 cannot be decoded"
    with pytest.raises(DataError, match=message):
        images(root, tmp_path, [bucket])


def test_each_root_needs_one_video_url(dataset: Path) -> None:
    with pytest.raises(DataError, match="'arm' has 2 video_urls for 1 roots, expected one for"):
        images(dataset, dataset, ["a://b", "c://d"])


class Hub(MemoryFileSystem):
    """Storage in memory under the hub's protocol."""

    protocol = "hf"
    store: dict = {}  # noqa: RUF012  as in the base class
    pseudo_dirs = [""]  # noqa: RUF012  as in the base class

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("hf://", "memory://"))


def test_hub_datasets_are_downloaded_without_their_videos(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[dict] = []

    def snapshot_download(repo_id: str, **options) -> str:
        downloads.append(options)
        if options["revision"] == "v3.0" and dataset.name == "old":
            answer = httpx.Response(404, request=httpx.Request("GET", "http://hub"))
            raise RevisionNotFoundError("no such tag", response=answer)
        snapshot = tmp_path / "hub" / "datasets--me--set" / "snapshots" / "abc123"
        return str(snapshot if snapshot.exists() else without_videos(dataset, snapshot))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setitem(_registry, "hf", Hub)
    Hub.store.clear()
    Hub.pseudo_dirs[:] = [""]
    Hub().put(str(dataset / "videos"), "/datasets/me/set@abc123/videos", recursive=True)
    robot = arm(cameras=(WRIST,), repo_ids=["me/set"])
    options = {"cache_dir": str(tmp_path), "image_size": (32, 48), "val_fraction": 0}
    options |= {"stream_videos": True}
    data = LeRobotVLA(
        [robot], chunk_length=5, batch_size=4, **grouped_settings(options, DATA_GROUPS)
    )
    data.prepare_data()
    data.setup("fit")
    assert torch.equal(everything(data).observation.images_BCKYX, images(dataset, tmp_path, []))
    assert {tuple(options["allow_patterns"]) for options in downloads} == {("meta/**", "data/**")}
    locate("me/set", videos=True)
    assert downloads[-1]["allow_patterns"] == ["meta/**", "data/**", "videos/**"]


def test_only_snapshots_of_the_hub_have_a_url(tmp_path: Path) -> None:
    snapshot = Path("/hub/datasets--org--my-set/snapshots/0123abc")
    assert hub_snapshot_url(snapshot) == "hf://datasets/org/my-set@0123abc"
    assert hub_snapshot_url(tmp_path) is None
    assert hub_snapshot_url(Path("data")) is None


def test_a_missing_remote_video_is_reported_or_its_episode_excluded(
    dataset: Path, bucket: str, tmp_path: Path
) -> None:
    root = without_videos(dataset, tmp_path / "light")
    storage = fsspec.filesystem("memory")
    storage.rm(storage.find("/bucket")[-1])
    message = r"memory://bucket/set: video file videos/.*\.mp4 of camera .* is missing; of 3 episo"
    with pytest.raises(DataError, match=message):
        images(root, tmp_path, [bucket])
    if dataset.name == "old":
        assert len(images(root, tmp_path, [bucket], skip_missing_videos=True)) == 12 + 7
