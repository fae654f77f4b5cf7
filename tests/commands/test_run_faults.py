"""Faults around a run, real ones if possible, each reported in one sentence."""

import errno
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import lightning  # noqa: F401  before a test captures the stream that its log goes to
import pytest

from actionprior import cli
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.commands._run_faults import as_user_error
from actionprior.errors import UserError
from tests.helpers.command_line import LIGHTNING, refused

FIT = ["fit", "--config", "recipe.yaml"]
FAULTS = """
import os
import signal

import torch
from torch.utils.data import DataLoader, Dataset

from mylab import toy


class Deadly(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(4)


class Data(toy.Data):
    def train_dataloader(self):
        return DataLoader(Deadly(), batch_size=2, num_workers=1)


class Model(toy.Model):
    def training_step(self, batch, index):
        if self.global_rank == 1 and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, index)
"""


def test_a_killed_loader_process_is_reported(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "mylab" / "faults.py").write_text(FAULTS)
    message = refused([*FIT, "--data=mylab.faults.Data"], capsys)
    assert "a process that loads data has ended (" in message  # torch notices it in one of two ways
    assert "lower --data.num_workers" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.devices=0"], "(devices='0')` value is not a valid input using cpu"),
        (["--seed_everything=-5"], "-5 is not in bounds"),
        (["--trainer.val_check_interval=0"], "trainer.val_check_interval is 0, expected a number"),
    ],
)
def test_values_that_lightning_refuses_are_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refused([*FIT, *words], capsys)


def test_a_full_disk_is_reported_and_the_old_checkpoint_stays(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint"
    words = [keep, "--trainer.callbacks.dirpath=kept", "--trainer.callbacks.filename=only"]
    words += ["--trainer.callbacks.enable_version_counter=false", "--trainer.logger=false"]
    cli.main([*FIT, *words])
    before = (folder / "kept/only.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    more = ["--trainer.max_epochs=2", "--ckpt_path=last"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 100, hard))
    try:
        message = refused([*FIT, *words, *more], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "kept/only.ckpt cannot be saved: File too large (about 0.0 MB are needed, " in message
    assert message.endswith(" MB are free); what was saved before is kept")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "cannot be saved: No space left on device" in refused([*FIT, *words, *more], capsys)
    assert [path.name for path in (folder / "kept").iterdir()] == ["only.ckpt"]
    assert (folder / "kept/only.ckpt").read_bytes() == before
    cli.main([*FIT, *words, *more])
    assert read_checkpoint(folder / "kept/only.ckpt")["global_step"] == 8


def test_a_run_folder_that_cannot_be_written_is_reported(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Path(tempfile.mkdtemp())  # that others can reach, unlike pytest's
    shutil.copytree(folder, place, dirs_exist_ok=True)
    monkeypatch.chdir(place)
    place.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nobody
    try:
        message = refused(FIT, capsys)
    finally:
        if root:
            os.seteuid(0)
        place.chmod(0o755)
        shutil.rmtree(place)
    assert "outputs" in message
    assert "Permission denied; write elsewhere with --trainer.default_root_dir" in message


@pytest.mark.slow
def test_the_other_ranks_end_soon_after_one_dies(folder: Path) -> None:
    (folder / "mylab" / "faults.py").write_text(FAULTS)
    words = ["--model=mylab.faults.Model", "--trainer.devices=2", "--trainer.strategy=ddp"]
    began = time.monotonic()
    run = subprocess.run(
        [LIGHTNING, *FIT, *words], cwd=folder, capture_output=True, text=True, timeout=150
    )
    assert run.returncode != 0
    assert "error: another process of this run has ended" in run.stderr, run.stderr
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    ("raised", "meant"),
    [
        ("unable to write to file </torch_12_34_0>: No space left on device (28)", "/dev/shm"),
        ("unable to open shared memory object </torch_1_2> in read-write mode", "/dev/shm"),
        ("[..pair.cc:534] Connection closed by peer [127.0.0.1]:5213", "another process"),
        ("NCCL error: remote process exited or there was a network error", "another process"),
        ("Read error [10.0.0.2]:20141: Connection timed out", "another process"),
        ("Gloo connectFullMesh failed with Connection closed by peer", "another process"),
        ("wait timeout after 600000ms, keys: /0//cpu//0/0", "another process"),
        ("Failed to recv, got 0 bytes. Connection was likely closed. Did the", "another process"),
        ("Timed out after 601 seconds waiting for clients. 1/2 clients joined", "another process"),
        ("Gloo connectFullMesh failed with [..pair.h:311] Connect timeout [none]", "do not reach"),
        ("The client socket has timed out after 600000ms while trying to co", "do not reach"),
    ],
)
def test_torchs_messages_become_one_sentence(raised: str, meant: str) -> None:
    error = ValueError("around it")
    error.__cause__ = RuntimeError(raised)
    assert meant in str(as_user_error(error))


def test_bugs_and_user_errors_stay_unchanged() -> None:
    assert as_user_error(RuntimeError("Caught KeyError in DataLoader worker process 0.")) is None
    assert as_user_error(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None
    known = UserError("known")
    known.__cause__ = OSError(errno.ENOSPC, "full", "x")
    assert as_user_error(known) is None
