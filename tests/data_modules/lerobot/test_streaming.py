"""Videos that stay where they are published: samples equal those of a whole copy."""

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
def published(request: pytest.FixtureRequest) -> Path:
    """A dataset of format v3.0, and one of v2.1."""
    return Path(request.getfixturevalue(request.param))


def without_videos(source: Path, root: Path) -> Path:
    return Path(shutil.copytree(source, root, ignore=shutil.ignore_patterns("videos")))


@pytest.fixture
def bucket(published: Path) -> str:
    """The dataset's videos in a storage that is not a disk."""
    fsspec.filesystem("memory").put(str(published / "videos"), "/bucket/set/videos", recursive=True)
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
    options: dict, decoder: str, published: Path, bucket: str, tmp_path: Path
) -> None:
    root = without_videos(published, tmp_path / "light")
    options = {"video_backend": decoder, **options}
    expected = images(published, tmp_path / "whole", [], video_backend=decoder)
    for url in (bucket, f"{bucket}/", published.as_uri()):
        assert torch.equal(images(root, tmp_path / "cache", [url], **options), expected)
    assert not (root / "videos").exists()


def test_videos_that_were_published_anew_are_decoded_anew(
    published: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = without_videos(published, tmp_path / "light")
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
def test_a_url_without_the_videos_is_told(
    url: str, message: str, published: Path, tmp_path: Path
) -> None:
    root = without_videos(published, tmp_path / "light")
    with pytest.raises(DataError, match=message) as told:
        images(root, tmp_path, [url])
    assert "\n" not in str(told.value)


def test_a_damaged_video_is_told_with_its_url(published: Path, bucket: str, tmp_path: Path) -> None:
    root = without_videos(published, tmp_path / "light")
    storage = fsspec.filesystem("memory")
    for path in storage.find("/bucket"):
        storage.pipe_file(path, b"no video")
    message = r"memory://bucket/set/videos/.*\.mp4: frames 0 to 11 of episode 0 cannot be decoded"
    with pytest.raises(DataError, match=message):
        images(root, tmp_path, [bucket])


def test_video_urls_are_one_a_root(published: Path) -> None:
    with pytest.raises(DataError, match="'arm' has 2 video_urls for 1 roots, expected one for"):
        images(published, published, ["a://b", "c://d"])


class Hub(MemoryFileSystem):
    """Stands in for the hub's storage."""

    protocol = "hf"
    store: dict = {}  # noqa: RUF012  as the parent's
    pseudo_dirs = [""]  # noqa: RUF012  as its base class has it

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("hf://", "memory://"))


def test_hub_datasets_are_downloaded_without_their_videos(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []

    def snapshot_download(repo_id: str, **options) -> str:
        asked.append(options)
        if options["revision"] == "v3.0" and published.name == "old":
            answer = httpx.Response(404, request=httpx.Request("GET", "http://hub"))
            raise RevisionNotFoundError("no such tag", response=answer)
        snapshot = tmp_path / "hub" / "datasets--me--set" / "snapshots" / "abc123"
        return str(snapshot if snapshot.exists() else without_videos(published, snapshot))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setitem(_registry, "hf", Hub)
    Hub.store.clear()
    Hub.pseudo_dirs[:] = [""]
    Hub().put(str(published / "videos"), "/datasets/me/set@abc123/videos", recursive=True)
    robot = arm(cameras=(WRIST,), repo_ids=["me/set"])
    options = {"cache_dir": str(tmp_path), "image_size": (32, 48), "val_fraction": 0}
    options |= {"stream_videos": True}
    data = LeRobotVLA(
        [robot], chunk_length=5, batch_size=4, **grouped_settings(options, DATA_GROUPS)
    )
    data.prepare_data()
    data.setup("fit")
    assert torch.equal(everything(data).observation.images_BCKYX, images(published, tmp_path, []))
    assert {tuple(options["allow_patterns"]) for options in asked} == {("meta/**", "data/**")}
    locate("me/set", videos=True)
    assert asked[-1]["allow_patterns"] == ["meta/**", "data/**", "videos/**"]


def test_only_snapshots_of_the_hub_have_a_url(tmp_path: Path) -> None:
    snapshot = Path("/hub/datasets--org--my-set/snapshots/0123abc")
    assert hub_snapshot_url(snapshot) == "hf://datasets/org/my-set@0123abc"
    assert hub_snapshot_url(tmp_path) is None
    assert hub_snapshot_url(Path("data")) is None


def test_a_published_video_that_is_missing_is_told_or_left_out(
    published: Path, bucket: str, tmp_path: Path
) -> None:
    root = without_videos(published, tmp_path / "light")
    storage = fsspec.filesystem("memory")
    storage.rm(storage.find("/bucket")[-1])
    message = r"memory://bucket/set: video file videos/.*\.mp4 of camera .* is missing; of 3 episo"
    with pytest.raises(DataError, match=message):
        images(root, tmp_path, [bucket])
    if published.name == "old":
        assert len(images(root, tmp_path, [bucket], skip_missing_videos=True)) == 12 + 7
