"""What was written is what is read, or the reader is told."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from actionprior.column_store import BLOCK, StoreError, open_store, write_store

ROWS = 2 * BLOCK + 100


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "action": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "task": rng.integers(0, 9, ROWS),
    }


@pytest.fixture
def folder(tmp_path: Path, columns: dict[str, np.ndarray]) -> Path:
    write_store(tmp_path / "store", columns, {"tasks": ["lift", "push"]})
    return tmp_path / "store"


def test_columns_are_read_as_they_were_written(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    store = open_store(folder)
    assert store.about == {"tasks": ["lift", "push"]}
    at = np.array([[0, ROWS - 1], [BLOCK, 7]])
    for name, array in columns.items():
        column = store.columns[name]
        assert len(column) == ROWS
        np.testing.assert_array_equal(column[at], array[at])
        np.testing.assert_array_equal(column[5:9], array[5:9])
        np.testing.assert_array_equal(column[:], array)
        assert np.array_equal(column[BLOCK], array[BLOCK])


def test_entries_can_be_picked_and_columns_sent_to_workers(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    picked = open_store(folder).columns["action"].pick(np.array([2, 0]))
    sent = pickle.dumps(picked)  # as a loader with workers does, within one program
    assert len(sent) < 2000  # not the data
    for column in (picked, pickle.loads(sent)):
        np.testing.assert_array_equal(column[3:6], columns["action"][3:6][:, [2, 0]])


def test_equal_columns_give_equal_bytes(
    folder: Path, tmp_path: Path, columns: dict[str, np.ndarray]
) -> None:
    write_store(tmp_path / "again", columns, {"tasks": ["lift", "push"]})
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_any_flipped_byte_is_noticed_and_never_read(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 30).tolist():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            found = told = None
            try:
                found = {n: column[:] for n, column in open_store(folder).columns.items()}
            except StoreError as error:
                told = str(error)
            # Bytes that carry nothing, such as padding in a header, may go unnoticed.
            assert told is not None or all(np.array_equal(found[n], columns[n]) for n in columns)
            assert told is None or str(folder) in told
        path.write_bytes(whole)


def test_blocks_that_are_whole_can_be_read_beside_a_damaged_one(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    path = folder / "columns.safetensors"
    whole = bytearray(path.read_bytes())
    whole[whole.index(columns["action"][:4].tobytes())] ^= 1
    path.write_bytes(whole)
    column = open_store(folder).columns["action"]
    np.testing.assert_array_equal(column[BLOCK:], columns["action"][BLOCK:])
    with pytest.raises(StoreError, match=rf"rows 0 to {BLOCK - 1} of 'action' are not what was"):
        column[np.array([BLOCK + 1, 2])]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "bytes, expected"),
        (lambda p: p.unlink(), "columns.safetensors is missing"),
        (lambda p: (p.parent / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda p: (p.parent / "manifest.json").write_text("{}"), "is not what was written"),
    ],
)
def test_a_store_that_is_not_whole_is_refused(spoil, message: str, folder: Path) -> None:
    spoil(folder / "columns.safetensors")
    with pytest.raises(StoreError, match=message):
        open_store(folder)


def test_another_format_is_refused(
    folder: Path, columns: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actionprior.column_store.FORMAT", 99)
    with pytest.raises(StoreError, match="is of format 1, expected 99"):
        open_store(folder)
