"""Checkpoints are written atomically, checked when they are read, and never run code."""

import errno
import multiprocessing
import os
import pickle
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch

from actionprior.checkpoints.atomic import AsyncAtomicCheckpointIO, AtomicCheckpointIO
from actionprior.checkpoints.reading import CheckpointError, read_checkpoint
from tests.helpers.damage import damaged

LIGHTNING = {"state_dict": {"w": torch.arange(4.0)}, "pytorch-lightning_version": "2.6.6"}


def save_forever(path: Path) -> None:
    for step in range(10**9):
        state = {"step": step, "w": torch.full((200_000,), float(step))}
        AtomicCheckpointIO().save_checkpoint({**LIGHTNING, "state_dict": state}, path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(LIGHTNING, path)
    torch.testing.assert_close(read_checkpoint(path)["state_dict"], LIGHTNING["state_dict"])
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]


def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for attempt in range(15):
        before = path.stat().st_mtime_ns if path.exists() else 0
        saver = multiprocessing.get_context("fork").Process(target=save_forever, args=(path,))
        saver.start()
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert saver.is_alive()
            time.sleep(0.002)
        time.sleep(0.003 * attempt)
        saver.kill()
        saver.join()
        state = read_checkpoint(path)["state_dict"]
        assert (state["w"] == state["step"]).all()


def test_a_failed_save_keeps_the_old_checkpoint_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(LIGHTNING, path)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        AtomicCheckpointIO().save_checkpoint({"state_dict": lambda: None}, path)
    torch.testing.assert_close(read_checkpoint(path)["state_dict"], LIGHTNING["state_dict"])
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, share: float) -> None:
    whole, cut = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    AtomicCheckpointIO().save_checkpoint(LIGHTNING, whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    for read in (read_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError, match=r"cut\.ckpt is cut short"):
            read(cut)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        read_checkpoint(tmp_path / "gone.ckpt")
    with pytest.raises(CheckpointError, match="is not a file"):
        read_checkpoint(tmp_path)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match=r"list\.ckpt holds a list"):
        read_checkpoint(tmp_path / "list.ckpt")
    torch.save({"w": torch.zeros(1)}, tmp_path / "bare.ckpt")
    with pytest.raises(CheckpointError, match=r"bare\.ckpt has no 'state_dict'"):
        read_checkpoint(tmp_path / "bare.ckpt")
    with pytest.raises(CheckpointError, match=r"bare\.ckpt has no 'state_dict'"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "bare.ckpt", weights_only=True)


@pytest.mark.parametrize("weights_only", [None, True, False])
def test_a_payload_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_only: bool | None
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, proof = tmp_path / "hostile.ckpt", tmp_path / "proof"
    torch.save({**LIGHTNING, "hyper_parameters": Payload(proof)}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt holds more than .*open"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt holds more than"):
        read_checkpoint(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)["hyper_parameters"].close()
    assert proof.exists()  # the payload is a working one


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        AtomicCheckpointIO().save_checkpoint(LIGHTNING, tmp_path / "a.ckpt")
    finally:
        os.umask(old)
    assert (tmp_path / "a.ckpt").stat().st_mode & 0o777 == 0o640


def test_flipped_bits_and_truncations_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    weights = {f"layer{k}.weight": torch.randn(20, 20) for k in range(5)}
    torch.save(LIGHTNING | {"state_dict": weights}, path)
    whole = path.read_bytes()
    detected = 0
    for content in damaged(whole):
        path.write_bytes(content)
        try:
            found = read_checkpoint(path)["state_dict"]
            torch.testing.assert_close(found, weights, rtol=0, atol=0)  # nothing of use changed
        except CheckpointError as error:
            detected += str(path) in str(error)
    assert detected > 300


@pytest.fixture
def may_save(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Event that saves wait for."""
    event, save = threading.Event(), AtomicCheckpointIO._save

    def waits(self: AtomicCheckpointIO, checkpoint: dict[str, object], target: Path) -> None:
        assert event.wait(20)
        save(self, checkpoint, target)

    monkeypatch.setattr(AtomicCheckpointIO, "_save", waits)
    return event


def test_a_save_in_a_thread_holds_the_weights_of_its_step(
    tmp_path: Path, may_save: threading.Event
) -> None:
    weights, first, second = torch.arange(4.0), tmp_path / "1.ckpt", tmp_path / "2.ckpt"
    saver = AsyncAtomicCheckpointIO()
    may_save.set()
    saver.save_checkpoint({**LIGHTNING, "state_dict": {"w": weights}}, first)
    assert saver.load_checkpoint(first)["state_dict"]["w"].tolist() == [0, 1, 2, 3]
    may_save.clear()
    saver.save_checkpoint({**LIGHTNING, "state_dict": {"w": weights}}, second)
    saver.remove_checkpoint(first)
    weights.add_(1)  # the next step
    assert first.exists()
    assert not second.exists()
    may_save.set()
    saver.teardown()
    assert not first.exists()
    assert read_checkpoint(second)["state_dict"]["w"].tolist() == [0, 1, 2, 3]


def test_a_failed_save_in_a_thread_is_reported_and_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, saver = tmp_path / "1.ckpt", AsyncAtomicCheckpointIO()
    saver.save_checkpoint(LIGHTNING, first)
    saver.load_checkpoint(first)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AtomicCheckpointIO, "_save", full)
    saver.save_checkpoint(LIGHTNING, tmp_path / "2.ckpt")
    saver.remove_checkpoint(first)
    with pytest.raises(CheckpointError, match=r"2\.ckpt cannot be saved: No space left"):
        saver.teardown()
    assert first.exists()


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    whole, packed = tmp_path / "whole.ckpt", tmp_path / "packed.ckpt"
    torch.save({**LIGHTNING, "state_dict": {"w": torch.zeros(10_000_000)}}, whole)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(packed, "w") as written:
        for record in given.infolist():
            written.writestr(record.filename, given.read(record), zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < whole.stat().st_size / 100
    with pytest.raises(CheckpointError, match=r"packed\.ckpt holds compressed records"):
        read_checkpoint(packed)


def test_a_record_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Readers differ in which one they take."""
    path = tmp_path / "a.ckpt"
    torch.save(LIGHTNING, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match=r"a\.ckpt is damaged: it has a record twice"):
        read_checkpoint(path)
