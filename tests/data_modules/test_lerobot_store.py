"""The store of a dataset's trajectories under what can go wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from actionprior.column_store import StoreError
from actionprior.data import DataError
from data_modules.lerobot_columns import read_columns
from data_modules.lerobot_store import cache_folder
from tests.datasets import arm, write_dataset

EXTRACT = """
import sys
from pathlib import Path
from data_modules.lerobot_columns import read_columns
from tests.datasets import arm
print("ready", flush=True)
sys.stdin.readline()
columns = read_columns(Path(sys.argv[1]), arm())
print(float(columns.action_Na[:].sum()), flush=True)
"""


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
    monkeypatch.setattr("data_modules.lerobot_store.read_rows", None)  # would fail
    again = read_columns(root, arm())
    np.testing.assert_array_equal(again.action_Na[:], first.action_Na[:])
    assert len(stores(cache)) == 1


def test_a_changed_source_is_extracted_anew_and_the_old_store_goes(root: Path, cache: Path) -> None:
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


def test_a_truncated_store_is_made_anew(root: Path, cache: Path) -> None:
    read_columns(root, arm())
    whole = content(cache)
    for path in list(stores(cache)[0].iterdir()):
        path.write_bytes(path.read_bytes()[:-7])
        read_columns(root, arm())
        assert content(cache) == whole


def test_a_flipped_byte_is_told_when_it_is_read(root: Path, cache: Path) -> None:
    columns = read_columns(root, arm())
    path = stores(cache)[0] / "columns.safetensors"
    whole = bytearray(path.read_bytes())
    whole[whole.index(columns.action_Na[3:5].tobytes())] ^= 16
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="rows 0 to 27 of 'action' are not what was written"):
        read_columns(root, arm()).action_Na[np.array([20])]


def start(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", EXTRACT, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_two_processes_at_once_make_one_store(root: Path, cache: Path) -> None:
    both = [start(root) for _ in range(2)]
    told = [process.communicate("\n", timeout=60)[0] for process in both]
    assert told[0] == told[1]
    assert len(stores(cache)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.1])
def test_a_killed_extraction_leaves_nothing_that_looks_whole(
    delay: float, root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(root)
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    read_columns(root, arm())
    found = content(cache)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "undisturbed"))
    read_columns(root, arm())
    assert found == content(cache_folder("trajectories"))


def test_a_full_disk_is_told_and_leaves_nothing(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(DataError, match=r"No space left on device.*set ACTIONPRIOR_CACHE"):
            read_columns(root, arm())
    assert stores(cache) == []
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
