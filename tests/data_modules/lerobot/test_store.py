"""Test the store of a dataset's trajectories, and what can go wrong with it."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from actionprior.data import DataError
from actionprior.data.column_store import StoreError
from data_modules.lerobot import source
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.store import cache_folder
from data_modules.lerobot.tasks import read_tasks
from tests.helpers.datasets import arm, write_dataset, write_v2
from tests.helpers.processes import PROCESSES

PROCESSES.set_forkserver_preload(
    [__name__, "filelock", "pandas", "pyarrow.compute", "pyarrow.parquet", "safetensors.numpy"]
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    return cache_folder("trajectories")


@pytest.fixture
def root(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "source"))


def stores(cache: Path) -> list[Path]:
    return sorted(p for p in cache.iterdir() if p.is_dir())


def content(cache: Path) -> dict[str, bytes]:
    (store,) = stores(cache)
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_a_dataset_is_extracted_once(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_columns(root, arm())
    monkeypatch.setattr("data_modules.lerobot.store.read_rows", None)  # would fail
    again = read_columns(root, arm())
    np.testing.assert_array_equal(again.action_Na[:], first.action_Na[:])
    assert len(stores(cache)) == 1


def test_a_changed_source_is_extracted_again_and_the_old_store_deleted(
    root: Path, cache: Path
) -> None:
    before = read_columns(root, arm()).action_Na[:].copy()
    (old,) = stores(cache)
    path = next((root / "data").glob("*/*.parquet"))
    table = pq.read_table(path)
    rows = [[v + 1 for v in row] for row in table["action"].to_pylist()]
    column = pa.array(rows, table.schema.field("action").type)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", column), path)
    np.testing.assert_allclose(read_columns(root, arm()).action_Na[:], before + 1, rtol=1e-5)
    (new,) = stores(cache)
    assert new != old


def test_a_source_that_changes_during_extraction_is_reported(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded_meanwhile(*arguments: object) -> list[str]:
        (root / "data" / "more").write_text("")
        return read_tasks(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("data_modules.lerobot.store.read_tasks", recorded_meanwhile)
        with pytest.raises(DataError, match="changed while it was read; run again"):
            read_columns(root, arm())
    assert stores(cache) == []
    assert len(read_columns(root, arm()).action_Na) == 28


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 16
    path.write_bytes(whole)


@pytest.mark.parametrize("damage", [truncate, Path.unlink, lambda p: p.write_bytes(b"")])
def test_an_incomplete_store_is_created_again(
    damage: Callable[[Path], None], root: Path, cache: Path
) -> None:
    expected = read_columns(root, arm()).action_Na[:].copy()
    whole = content(cache)
    for path in list(stores(cache)[0].iterdir()):
        damage(path)
        np.testing.assert_array_equal(read_columns(root, arm()).action_Na[:], expected)
        assert content(cache) == whole


def test_a_flipped_byte_is_reported_on_reading_and_the_store_created_again(
    root: Path, cache: Path
) -> None:
    columns = read_columns(root, arm())
    expected, whole = columns.action_Na[:].copy(), content(cache)
    path = stores(cache)[0] / "action.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(expected[20:22].tobytes())] ^= 16
    path.write_bytes(damaged)
    opened = read_columns(root, arm())  # does not check the values yet
    with pytest.raises(StoreError, match=r"action.*: rows 0 to 27 are not what was written"):
        opened.action_Na[np.array([20])]
    np.testing.assert_array_equal(read_columns(root, arm()).action_Na[:], expected)
    assert content(cache) == whole


def test_a_store_with_a_wrong_manifest_is_created_again(root: Path, cache: Path) -> None:
    read_columns(root, arm())
    whole = content(cache)
    manifest = stores(cache)[0] / "manifest.json"
    flip(manifest)
    read_columns(root, arm())
    assert content(cache) == whole
    body = json.loads(manifest.read_text().splitlines()[1])
    body["columns"]["action"]["holds"][0] = "<i8"
    text = json.dumps(body, sort_keys=True)
    manifest.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")
    read_columns(root, arm())
    assert content(cache) == whole


def test_a_dataset_read_in_parts_gives_the_same_store(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_columns(root, arm())
    whole = content(cache)
    shutil.rmtree(cache)
    monkeypatch.setattr("data_modules.lerobot.source.AT_ONCE", 3)
    read_columns(root, arm())
    assert content(cache) == whole


def extract(root: Path, cache: Path, pipe: Connection, limit: int = 0) -> None:
    """Read the dataset in a separate process on a message, and send the sum or an error."""
    os.environ["ACTIONPRIOR_CACHE"] = str(cache)
    source.AT_ONCE = 1  # many writes, so that it can be killed at many points
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pipe.send("ready")
    pipe.recv()
    try:
        pipe.send(float(read_columns(root, arm()).action_Na[:].sum()))
    except DataError as error:
        pipe.send(str(error))


class Extraction:
    """Separate process that extracts a dataset."""

    def __init__(self, root: Path, cache: Path, limit: int = 0) -> None:
        self.pipe, child_end = PROCESSES.Pipe()
        self.process = PROCESSES.Process(
            target=extract, args=(root, cache.parent, child_end, limit)
        )
        self.process.start()
        assert self.pipe.recv() == "ready"

    def go(self) -> None:
        self.pipe.send("go")

    def end(self) -> object:
        result = self.pipe.recv()
        self.process.join()
        return result


@pytest.mark.slow
def test_two_processes_at_once_make_one_store(root: Path, cache: Path) -> None:
    both = [Extraction(root, cache) for _ in range(2)]
    for one in both:
        one.go()
    sums = [one.end() for one in both]
    assert sums[0] == sums[1] == float(read_columns(root, arm()).action_Na[:].sum())
    assert len(stores(cache)) == 1


@pytest.mark.slow
def test_an_extraction_killed_at_any_point_leaves_no_partial_store(root: Path, cache: Path) -> None:
    complete = Extraction(root, cache)
    start = time.perf_counter()
    complete.go()
    complete.end()
    took, expected = time.perf_counter() - start, content(cache)
    rng = np.random.default_rng()
    found_whole = left_behind = 0
    for point in rng.permutation(20):
        shutil.rmtree(cache)
        killed = Extraction(root, cache)
        killed.go()
        time.sleep((point + rng.random()) / 20 * took)
        killed.process.kill()
        killed.process.join()
        found_whole += len(stores(cache)) if cache.exists() else 0
        left_behind += len(list(cache.glob(".*writing*")))
        read_columns(root, arm())
        assert content(cache) == expected
        assert not list(cache.glob(".*writing*"))
    assert left_behind > 0  # some were killed while writing


@pytest.mark.slow
def test_a_file_size_limit_is_reported_and_leaves_nothing(root: Path, cache: Path) -> None:
    limited = Extraction(root, cache, limit=400)
    limited.go()
    assert "cannot be written there" in str(message := limited.end())
    assert "set ACTIONPRIOR_CACHE to a folder with free space" in str(message)
    assert stores(cache) == []
    assert not list(cache.glob(".*writing*"))
    assert len(read_columns(root, arm()).action_Na) == 28


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of four pages, with the cache on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small tmpfs needs root ({error})")
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(disk / "cache"))
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_reported_and_leaves_nothing(root: Path, small_disk: Path) -> None:
    folder = cache_folder("trajectories")
    with pytest.raises(DataError, match=r"No space left on device.*set ACTIONPRIOR_CACHE"):
        read_columns(root, arm())
    assert stores(folder) == []
    assert not list(folder.glob(".*writing*"))
    subprocess.run(["mount", "-o", "remount,size=64k", str(small_disk)], check=True)
    assert len(read_columns(root, arm()).action_Na) == 28


def test_format_v21_gives_what_v30_gives(root: Path, tmp_path: Path) -> None:
    expected = read_columns(root, arm())
    old = tmp_path / "old"
    (old / "meta").mkdir(parents=True)
    info = json.loads((root / "meta" / "info.json").read_text())
    (old / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(expected.tasks)]
    (old / "meta" / "tasks.jsonl").write_text("\n".join(map(json.dumps, reversed(tasks))))
    episodes = [
        {"episode_index": i, "tasks": [], "length": n}
        for i, n in enumerate(expected.lengths_E.tolist())
    ]
    (old / "meta" / "episodes.jsonl").write_text("\n".join(map(json.dumps, episodes)))
    table = pq.read_table(next((root / "data").glob("*/*.parquet")))
    (old / "data" / "chunk-000").mkdir(parents=True)
    for i in range(3):
        rows = table.filter(pa.compute.equal(table["episode_index"], i))
        pq.write_table(rows, old / "data" / "chunk-000" / f"episode_{i:06d}.parquet")
    found = read_columns(old, arm())
    assert found.tasks_E == expected.tasks_E
    for name in ("action_Na", "state_Ns", "timestamp_N"):
        np.testing.assert_array_equal(getattr(found, name)[:], getattr(expected, name)[:])


def test_many_short_datasets_can_be_open_at_once(tmp_path: Path) -> None:
    roots = [write_dataset(tmp_path / f"d{i}", (3,), seed=i) for i in range(3)]
    opened = [read_columns(r, arm()) for r in roots]
    assert len({float(c.action_Na[:].sum()) for c in opened}) == 3


def test_linked_folders_are_part_of_the_dataset(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_LINKED_DATA", str(tmp_path / "elsewhere"))
    chunk = next((root / "data").iterdir())
    elsewhere = Path(shutil.move(chunk, tmp_path / "elsewhere"))
    chunk.symlink_to(elsewhere)
    (root / "data" / "lost.txt").symlink_to(tmp_path / "nowhere")  # a broken link is ignored
    before = read_columns(root, arm()).action_Na[:]
    (path,) = elsewhere.glob("*.parquet")
    table = pq.read_table(path)
    moved = pa.array((np.array(table["action"].to_pylist(), np.float32) + 5).tolist())
    index = table.schema.get_field_index("action")
    pq.write_table(table.set_column(index, "action", moved), path)
    np.testing.assert_allclose(read_columns(root, arm()).action_Na[:], before + 5, atol=1e-5)


def test_tasks_of_v21_are_known_by_their_index(split: Path, tmp_path: Path) -> None:
    root = write_v2(split, tmp_path / "old")
    lines = [{"task_index": i, "task": t} for i, t in ((0, "push"), (1, "lift"), (7, "stack"))]

    def name(lines: list[dict[str, object]]) -> None:
        (root / "meta" / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def renumber(old: int, new: int) -> None:
        for path in (root / "data").rglob("*.parquet"):
            table = pq.read_table(path)
            numbers = table["task_index"].to_numpy().copy()
            numbers[numbers == old] = new
            place = table.schema.get_field_index("task_index")
            pq.write_table(table.set_column(place, "task_index", pa.array(numbers)), path)

    renumber(1, 7)
    name([lines[2], lines[0]])
    assert read_columns(root, arm()).tasks_E == ["push", "stack", "push"]
    name(lines[:2])
    with pytest.raises(
        DataError, match=r"frame of episode 1 has task_index 7, .*it lists \[0, 1\]"
    ):
        read_columns(root, arm())
