"""Test filling the image cache under kill -9, by two processes at once, and on a full disk."""

import multiprocessing
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tqdm import tqdm

from actionprior.data import DataError
from data_modules.images.frames import FrameImages
from tests.helpers.datasets import CAMERAS, write_dataset
from tests.helpers.vla_data import everything, module

KILLS = 20

Files = dict[str, bytes]


class FilledCache(NamedTuple):
    """A dataset, its files in the cache, the images of its batch and the time to fill the cache."""

    root: Path
    files: Files
    images: bytes
    seconds: float


def fill(root: Path, cache: Path, **options) -> bytes:
    data = module(
        root, cameras=CAMERAS, cache_dir=str(cache), val_fraction=0, video_backend="pyav", **options
    )
    return everything(data).observation.images_BCKYX.numpy().tobytes()


def files(cache: Path) -> Files:
    return {str(p.relative_to(cache)): p.read_bytes() for p in cache.rglob("*.npy")}


def unfinished(cache: Path) -> list[Path]:
    return list(cache.rglob("*.part"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> FilledCache:
    folder = tmp_path_factory.mktemp("faults")
    kinds = {CAMERAS[0]: "image", CAMERAS[1]: "video"}
    root = write_dataset(folder / "set", (25, 40, 10, 33, 21, 28), cameras=kinds)
    fill(root, folder / "warm")
    start = time.perf_counter()
    images = fill(root, folder / "cache")
    return FilledCache(root, files(folder / "cache"), images, time.perf_counter() - start)


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start a process that has imported everything and waits for a message before it works."""
    parent_end, child_end = multiprocessing.Pipe()

    def run() -> None:
        # A fork shares tqdm's lock. If it were killed holding it, the parent would wait forever.
        tqdm.set_lock(threading.RLock())
        child_end.recv()
        try:
            child_end.send(work())
        except Exception as error:
            child_end.send(f"{type(error).__name__}: {error}")

    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    try:
        yield process, parent_end
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
def test_a_killed_fill_is_resumed_and_ends_in_the_same_bytes(
    filled: FilledCache, tmp_path: Path
) -> None:
    rng = np.random.default_rng()
    for kill in range(KILLS):
        cache, delay = tmp_path / str(kill), rng.uniform(0, filled.seconds)
        with forked(lambda cache=cache: fill(filled.root, cache)) as (process, pipe):
            pipe.send("go")
            time.sleep(delay)
            process.kill()
            process.join()
        for name, content in files(cache).items():
            assert content == filled.files[name], f"killed after {delay:.4f} s: {name}"
        assert fill(filled.root, cache) == filled.images
        assert files(cache) == filled.files, f"killed after {delay:.4f} s"
        assert unfinished(cache) == []


@pytest.mark.slow
@pytest.mark.parametrize("share", [None, 0.6])
@pytest.mark.filterwarnings("ignore:the decoded images of this run take")
def test_two_processes_fill_one_cache(
    share: float | None,
    filled: FilledCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded, frames = tmp_path / "decoded", FrameImages.frames

    def recorded_frames(self, episode, camera, rows):
        if len(rows) > 1:
            with decoded.open("a") as file:
                file.write(f"{episode} {camera}\n")
        return frames(self, episode, camera, rows)

    monkeypatch.setattr(FrameImages, "frames", recorded_frames)
    needed, most = sum(map(len, filled.files.values())), 0
    options = {} if share is None else {"cache_gb": share * needed / 1e9}
    cache = tmp_path / "cache"

    def work() -> bool:
        return fill(filled.root, cache, **options) == filled.images

    with forked(work) as (first, pipe), forked(work) as (second, other_pipe):
        pipe.send("go")
        other_pipe.send("go")
        while first.is_alive() or second.is_alive():
            taken = 0
            for path in cache.rglob("*.*"):
                try:
                    taken += path.stat().st_size if path.suffix in (".npy", ".part") else 0
                except FileNotFoundError:
                    continue
            most = max(most, taken)
        assert (pipe.recv(), other_pipe.recv()) == (True, True)
    whole = files(cache)
    assert all(content == filled.files[name] for name, content in whole.items())
    assert unfinished(cache) == []
    fills = decoded.read_text().splitlines()
    assert (
        len(set(fills)) == len(fills) == len(whole)
    )  # the work is shared, and no episode is decoded twice
    if share is None:
        assert whole.keys() == filled.files.keys()
    else:
        assert 0.4 * needed < most <= share * needed


@pytest.mark.slow
def test_a_file_size_limit_is_reported(filled: FilledCache, tmp_path: Path) -> None:
    def work() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        return fill(filled.root, tmp_path)

    with forked(work) as (_, pipe):
        pipe.send("go")
        message = pipe.recv()
    assert "File too large" in message
    assert message.startswith(
        f"DataError: {tmp_path}/images: decoded images cannot be written there"
    )
    assert unfinished(tmp_path) == []
    assert fill(filled.root, tmp_path) == filled.images


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_is_reported_and_a_smaller_cache_is_used(
    filled: FilledCache, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(map(len, filled.files.values())) // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(DataError, match=r"No space left on device\); set cache_dir or"):
            fill(filled.root, disk)
        cached = files(disk)
        assert 0 < len(cached) < len(filled.files)
        assert all(content == filled.files[name] for name, content in cached.items())
        assert unfinished(disk) == []
        with pytest.warns(UserWarning, match="are decoded at each access"):
            assert fill(filled.root, disk, cache_gb=0.8 * size / 1e9) == filled.images
    finally:
        subprocess.run(["umount", str(disk)], check=True)
