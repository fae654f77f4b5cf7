"""Test remote datasets: batches equal those of a complete local copy."""

import logging
import os
import shutil
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from actionprior.batch import VLABatch
from actionprior.data import DataError
from data_modules import LeRobotTrajectories, LeRobotVLA
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.remote import local_copy, local_copy_folder, source_url
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm
from tests.helpers.processes import PROCESSES
from tests.helpers.vla_data import everything

URL = "memory://shop/set"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["seen", "old"])
def remote(request: pytest.FixtureRequest) -> Path:
    """Store a dataset of format v3.0, and one of v2.1, in fsspec's memory. Return the original."""
    source = Path(request.getfixturevalue(request.param))
    fsspec.filesystem("memory").put(str(source), "/shop/set", recursive=True)
    yield source
    fsspec.filesystem("memory").rm("/shop", recursive=True)


def test_stage_one_copies_all_but_images_and_reads_the_same_numbers(remote: Path) -> None:
    robot = arm()
    robot.roots = [URL]
    data = LeRobotTrajectories([robot], batch_size=4)
    data.prepare_data()
    data.setup("fit")
    expected = read_columns(remote, arm())
    (found,) = data.frames.store.recordings
    np.testing.assert_array_equal(found.action_Na[:], expected.action_Na[:])
    np.testing.assert_array_equal(found.state_Ns[:], expected.state_Ns[:])
    root = local_copy_folder(URL)
    assert source_url(root) == URL
    assert not (root / "videos").exists()
    for path in (root / "data").rglob("*.parquet"):
        names = pq.read_schema(path).names
        assert "action" in names
        assert not set(names) & set(CAMERAS)


@pytest.mark.usefixtures("remote")
def test_hidden_files_are_not_copied() -> None:
    for name in ("data/chunk-000/._file-000.parquet", "data/.ipynb_checkpoints/file-000.parquet"):
        fsspec.filesystem("memory").pipe(f"/shop/set/{name}", b"no parquet")
    root = local_copy(URL)
    assert not [path for path in root.rglob("*") if "/." in str(path.relative_to(root.parent))]


@pytest.mark.parametrize("cached", [True, False])
def test_stage_two_reads_the_same_images(cached: bool, remote: Path, tmp_path: Path) -> None:
    batches: list[VLABatch] = []
    for root in (str(remote), URL):
        robot = arm(cameras=CAMERAS)
        robot.roots = [root]
        images = ImageSettings((32, 48), cache_images=cached, cache_dir=str(tmp_path))
        data = LeRobotVLA([robot], images=images)
        data.prepare_data()
        data.setup("fit")
        batches.append(everything(data))
    local, streamed = batches
    assert torch.equal(local.observation.images_BCKYX, streamed.observation.images_BCKYX)
    assert streamed.observation.camera_mask_BC.all()
    assert local.observation.task == streamed.observation.task
    assert torch.equal(local.future.action_BHA, streamed.future.action_BHA)


@pytest.mark.usefixtures("remote")
def test_a_copy_is_made_once_and_updated_when_the_remote_files_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    plain_open = MemoryFileSystem.open

    def counted(self: MemoryFileSystem, path: str, *more: object, **options: object) -> object:
        opened.append(path)
        return plain_open(self, path, *more, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", counted)
    root = local_copy(URL)
    assert opened
    opened.clear()
    assert local_copy(URL + "/") == root
    assert not opened
    with fsspec.open(f"{URL}/meta/more.txt", "w") as file:
        file.write("news")
    opened.clear()
    assert (local_copy(URL) / "meta" / "more.txt").read_text() == "news"
    assert opened


def test_a_copy_is_used_if_the_url_cannot_be_reached(
    remote: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match=r"memory://shop/none: meta and data cannot be read there"):
        local_copy("memory://shop/none")
    root = local_copy(URL)
    fsspec.filesystem("memory").mv("/shop/set", "/shop/away", recursive=True)
    with caplog.at_level(logging.WARNING):
        assert local_copy(URL) == root
    assert "cannot be read there" in caplog.text
    assert "is used without an update" in caplog.text
    assert len(read_columns(root, arm()).action_Na) == len(read_columns(remote, arm()).action_Na)


def test_a_failed_copy_is_reported_and_leaves_nothing(remote: Path, cache: Path) -> None:
    storage = fsspec.filesystem("memory")
    (path, *_) = [p for p in storage.find("/shop/set/data")]
    storage.pipe_file(path, storage.cat_file(path)[:-9])
    name = path.removeprefix("/shop/set/")
    with pytest.raises(
        DataError, match=rf"cannot be written there \({name}: ArrowInvalid: "
    ) as error:
        local_copy(URL)
    assert "\n" not in str(error.value)
    assert [p.name for p in (cache / "datasets").iterdir() if p.is_dir()] == []


@pytest.mark.usefixtures("remote")
def test_paths_outside_of_the_url_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = "/shop/set/meta/../../../home/x"
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "find", lambda *_, **__: {outside: {"size": 1}})
        with pytest.raises(DataError, match=r"names 'meta/\.\./\.\./\.\./home/x', which is not in"):
            local_copy(URL)


def test_other_folders_have_no_source_url(plain: Path, tmp_path: Path) -> None:
    assert source_url(plain) is None
    shutil.copytree(plain, tmp_path / "set")
    (tmp_path / "set" / "published.json").write_text("{")
    assert source_url(tmp_path / "set") is None


def copy_on_message(url: str, cache: Path, pipe: Connection) -> None:
    """Copy in a separate process, once it receives a message."""
    os.environ["ACTIONPRIOR_CACHE"] = str(cache)
    pipe.send("ready")
    pipe.recv()
    local_copy(url)


def start_copy(url: str, cache: Path) -> tuple[BaseProcess, Connection]:
    parent_end, child_end = PROCESSES.Pipe()
    process = PROCESSES.Process(target=copy_on_message, args=(url, cache, child_end))
    process.start()
    assert parent_end.recv() == "ready"
    return process, parent_end


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_copy_killed_at_any_point_leaves_no_partial_copy(old: Path, cache: Path) -> None:
    url = f"file://{old}"
    process, pipe = start_copy(url, cache)
    begin = time.perf_counter()
    pipe.send("go")
    process.join()
    took, expected = time.perf_counter() - begin, content(local_copy_folder(url))
    rng = np.random.default_rng()
    for point in rng.permutation(20):
        shutil.rmtree(cache / "datasets")
        process, pipe = start_copy(url, cache)
        pipe.send("go")
        time.sleep((point + rng.random()) / 20 * took)
        process.kill()
        process.join()
        assert content(local_copy(url)) == expected
        assert not list((cache / "datasets").glob(".*writing*"))


@pytest.mark.slow
def test_two_processes_at_once_make_one_copy(old: Path, cache: Path) -> None:
    url = f"file://{old}"
    both = [start_copy(url, cache) for _ in range(2)]
    for _, pipe in both:
        pipe.send("go")
    for process, _ in both:
        process.join()
        assert process.exitcode == 0
    assert content(local_copy_folder(url)) == content(local_copy(url))
    assert len([p for p in (cache / "datasets").iterdir() if p.is_dir()]) == 1
