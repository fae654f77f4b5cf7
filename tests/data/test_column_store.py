"""Columns are read as they were written, or an error is raised."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from actionprior.data.column_store import BLOCK, StoreError, open_store, write_store

ROWS = 16 * BLOCK + 100


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "action": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "task": rng.integers(0, 9, ROWS),
    }


def write(folder: Path, columns: dict[str, np.ndarray], part: int = ROWS) -> Path:
    with write_store(folder) as store:
        for first in range(0, ROWS, part):
            store.append({name: array[first : first + part] for name, array in columns.items()})
        store.append({"length": np.arange(5)})
        store.about["tasks"] = ["lift", "push"]
    return folder


@pytest.fixture
def folder(tmp_path: Path, columns: dict[str, np.ndarray]) -> Path:
    return write(tmp_path / "store", columns)


def test_columns_are_read_as_they_were_written(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    store = open_store(folder)
    assert store.about == {"tasks": ["lift", "push"]}
    np.testing.assert_array_equal(store.columns["length"][:], np.arange(5))
    rng = np.random.default_rng(2)
    scattered = rng.integers(0, ROWS, (50, 4))
    windows = rng.integers(0, ROWS - 15, 400)[:, None] + np.arange(15)
    for name, array in columns.items():
        column = store.columns[name]
        assert len(column) == ROWS
        for at in (scattered, windows, scattered[:, 0], scattered[:0], windows[:0, 0]):
            np.testing.assert_array_equal(column[at], array[at])
            np.testing.assert_array_equal(column.take(at), array[at])
            assert column.take(at).dtype == array.dtype
        for at in (slice(5, 9), slice(2990, 9010), slice(None), slice(9, 5), slice(-7, None)):
            np.testing.assert_array_equal(column[at], array[at])
        np.testing.assert_array_equal(column[5:9000:7], array[5:9000:7])
        for length in (1, 15, BLOCK + 9):
            first = rng.integers(0, ROWS - length + 1, 60)
            first[:2] = 0, ROWS - length
            expected = array[first[:, None] + np.arange(length)]
            np.testing.assert_array_equal(column.runs(first, length), expected)
        assert column.runs(first, 0).shape == (60, 0, *array.shape[1:])
        assert column.runs(first[:0], 15).shape == (0, 15, *array.shape[1:])
        for row in (0, 2999, 3000, BLOCK, ROWS - 1, -1):
            assert np.array_equal(column[row], array[row])
        for beyond in (ROWS, np.array([3, ROWS]), np.array([[3, ROWS]])):
            with pytest.raises(IndexError):
                column[beyond]


def test_columns_cannot_be_written_to(folder: Path) -> None:
    some = open_store(folder).columns["action"][:5]
    with pytest.raises(ValueError, match="read-only"):
        some[0] = 1.0


def test_entries_can_be_picked_and_columns_sent_to_workers(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    for entries in ([2, 0], [1, 2], [0, 1, 2]):
        picked = open_store(folder).columns["action"].pick(np.array(entries))
        sent = pickle.dumps(picked)  # as a loader with workers does, within one program
        assert len(sent) < 5000  # not the data
        for column in (picked, pickle.loads(sent)):
            expected = columns["action"][2900:3100][:, entries]
            np.testing.assert_array_equal(column[2900:3100], expected)
            np.testing.assert_array_equal(column.take(np.arange(2900, 3100)), expected)
            np.testing.assert_array_equal(column.runs(np.array([2900]), 200)[0], expected)


def test_equal_rows_give_equal_bytes_in_however_many_parts(
    folder: Path, tmp_path: Path, columns: dict[str, np.ndarray]
) -> None:
    for part in (700, ROWS):
        again = write(tmp_path / f"again-{part}", columns, part)
        assert {path.name for path in folder.iterdir()} == {path.name for path in again.iterdir()}
        for path in folder.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes()


def test_the_library_reads_what_we_write(folder: Path, columns: dict[str, np.ndarray]) -> None:
    for name, array in columns.items():
        found = load_file(folder / f"{name}.safetensors")
        assert list(found) == [name]
        np.testing.assert_array_equal(found[name], array)


def test_a_columns_rows_have_one_type_and_shape(tmp_path: Path) -> None:
    with write_store(tmp_path / "s") as store:
        store.append({"a": np.zeros((4, 3))})
        with pytest.raises(ValueError, match=r"a holds float64 \(3,\), not float64 \(2,\)"):
            store.append({"a": np.zeros((4, 2))})


def test_columns_that_grow_together_are_equally_long(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="equally many rows"), write_store(tmp_path / "s") as store:
        store.append({"a": np.zeros(3), "b": np.zeros(4)})
    assert not list(tmp_path.iterdir())


def test_any_flipped_byte_is_noticed_and_never_read(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    manifest = (folder / "manifest.json").read_text()
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 30).tolist():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            found = message = None
            try:
                found = {n: column[:] for n, column in open_store(folder).columns.items()}
            except StoreError as error:
                message = str(error)
            # Bytes that carry nothing, such as padding in a header, may go unnoticed.
            intact = message is None and all(
                np.array_equal(found[n], a) for n, a in columns.items()
            )
            assert message is not None or intact
            assert message is None or str(folder) in message
            (folder / "manifest.json").write_text(manifest)  # deleted when damage was found
        path.write_bytes(whole)


def test_intact_blocks_can_be_read_beside_a_damaged_one(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    path = folder / "action.safetensors"
    whole = bytearray(path.read_bytes())
    whole[whole.index(columns["action"][:4].tobytes())] ^= 1
    path.write_bytes(whole)
    column = open_store(folder).columns["action"]
    np.testing.assert_array_equal(column[BLOCK:], columns["action"][BLOCK:])
    np.testing.assert_array_equal(
        column.runs(np.array([BLOCK]), 15)[0], columns["action"][BLOCK:][:15]
    )
    message = rf"action.safetensors: rows 0 to {BLOCK - 1} are not what was written"
    with pytest.raises(StoreError, match=message):
        column.runs(np.array([2 * BLOCK, BLOCK - 1]), 15)  # the second begins in the damaged block
    with pytest.raises(StoreError, match=message):
        column[np.array([BLOCK + 1, 2])]
    # The next one to open the store gets an error, and can rebuild it.
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "safetensors has .* bytes, expected"),
        (lambda p: p.unlink(), "task.safetensors is missing"),
        (lambda p: (p.parent / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda p: (p.parent / "manifest.json").write_text("{}"), "is not what was written"),
    ],
)
def test_an_incomplete_store_is_refused(spoil, message: str, folder: Path) -> None:
    spoil(sorted(folder.glob("*.safetensors"))[-1])
    with pytest.raises(StoreError, match=message):
        open_store(folder)


def test_swapped_column_files_are_refused(tmp_path: Path) -> None:
    with write_store(tmp_path / "store") as store:
        store.append({"a": np.zeros((9, 3)), "b": np.ones((9, 3))})
    one, two = sorted(tmp_path.glob("store/*.safetensors"))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(StoreError, match=r"a\.safetensors cannot be read as safetensors"):
        open_store(tmp_path / "store")
    one.write_bytes(second.replace(b'"b"', b'"a"'))
    two.write_bytes(first.replace(b'"a"', b'"b"'))
    with pytest.raises(StoreError, match=r"a\.safetensors: rows 0 to 8 are not what was written"):
        open_store(tmp_path / "store").columns["a"].take(np.array([5]))


def test_another_format_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actionprior.data.column_store.FORMAT", 99)
    with pytest.raises(StoreError, match="is of format 3, expected 99"):
        open_store(folder)


READ = """
import re, resource, sys
from pathlib import Path
import numpy as np
from actionprior.data.column_store import open_store
used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
limit = used + (16 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
column = open_store(Path(sys.argv[1])).columns["rows"]
rng = np.random.default_rng(0)
at = rng.integers(0, len(column), (100, 2048))
print(sum(int(column.take(rows)[:, 0].sum()) for rows in at) == int(at.sum()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_store_needs_less_than_a_quarter_of_it_in_memory(tmp_path: Path) -> None:
    with write_store(tmp_path / "store") as store:
        for first in range(0, 1_000_000, 100_000):
            numbers = np.arange(first, first + 100_000)
            store.append({"rows": np.stack([numbers] * 8, axis=1)})  # 64 MB in all
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "store")], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
