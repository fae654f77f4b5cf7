"""Sharded checkpoints are written atomically, hold what one file holds and are never unpickled."""

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save
from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path

from actionprior.checkpoints import resume
from actionprior.checkpoints.atomic import AtomicCheckpointIO
from actionprior.checkpoints.formats import FormatError
from actionprior.checkpoints.prior import load_prior
from actionprior.checkpoints.reading import CheckpointError, read_checkpoint
from actionprior.checkpoints.sharded import ShardedCheckpoint, save_sharded
from actionprior.commands.consolidate import consolidate
from actionprior.errors import UserError
from actionprior.policy import Policy
from actionprior.training.sharding import ShardedStrategy
from tests.helpers.damage import damaged
from tests.helpers.killed_saves import join_group_of_one, tree
from tests.helpers.process_group import ROOT, group_of_this_test  # noqa: F401  a fixture
from tests.helpers.ranks_sharded import stage1, train
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


def same(found: object, expected: object) -> None:
    """Compare two checkpoints: the same keys in the same order, the same bits."""
    (found_leaves, shape), (leaves, expected_shape) = map(tree_flatten_with_path, (found, expected))
    assert shape == expected_shape
    for (place, value), (_, wanted) in zip(found_leaves, leaves, strict=True):
        assert type(value) is type(wanted), place
        if isinstance(value, Tensor):
            assert value.dtype == wanted.dtype, place
            assert torch.equal(value, wanted), place
        else:
            assert value == wanted, place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sharded checkpoint of one process."""
    join_group_of_one()
    save_sharded(tree(1.0), tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


@pytest.mark.slow
def test_two_ranks_save_and_resume_as_with_one_file(tmp_path: Path) -> None:
    train(tmp_path, "one_shards", True, ranks=1)
    train(tmp_path, "one_file", False, ranks=1)
    command = [sys.executable, "-m", "tests.helpers.ranks_sharded", str(tmp_path)]
    run = subprocess.run(command, timeout=200, cwd=ROOT, check=False)
    assert run.returncode != 0  # in the end a rank is killed while it saves
    assert not list(tmp_path.glob("killed*"))
    names = {"index.json", "rest.pt", "shard-0-of-2.safetensors", "shard-1-of-2.safetensors"}
    assert {path.name for path in (tmp_path / "shards3.ckpt").iterdir()} == names

    for step in (3, 6):
        consolidate(tmp_path / f"shards{step}.ckpt", tmp_path / "whole.ckpt")
        same(*(read_checkpoint(tmp_path / f"{n}.ckpt") for n in ("whole", f"file{step}")))
    whole = ShardedCheckpoint(tmp_path / "shards6.ckpt").full_checkpoint()
    same(
        ShardedCheckpoint(tmp_path / "again6.ckpt").full_checkpoint(), whole
    )  # resumed on two ranks
    weights = [read_checkpoint(tmp_path / f"wide_{n}6.ckpt") for n in ("shards", "file")]
    same(*weights)  # begun on one rank

    train(tmp_path, "narrow_shards", False, "shards3.ckpt", ranks=1)
    train(tmp_path, "narrow_file", False, "file3.ckpt", ranks=1)
    same(*(read_checkpoint(tmp_path / f"narrow_{n}6.ckpt") for n in ("shards", "file")))
    data = ToyTrajectories(episodes=6, batch_size=16)
    runner = trainer(tmp_path, 6, limit_val_batches=0)  # not sharded
    runner.fit(stage1(data), data, ckpt_path=tmp_path / "whole.ckpt", weights_only=True)
    priors = [load_prior(tmp_path / f"{name}.ckpt").state_dict() for name in ("whole", "shards6")]
    same(*priors)

    (tmp_path / "shards6.ckpt/shard-1-of-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard-1-of-2\.safetensors is missing"):
        ShardedCheckpoint(tmp_path / "shards6.ckpt").full_checkpoint()


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_or_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed_saves", tmp_path], check=True, cwd=ROOT
    )
    found = []
    for kill_at in range(len(list(tmp_path.iterdir()))):
        run = tmp_path / str(kill_at)
        whole = [ShardedCheckpoint(path).full_checkpoint() for path in run.glob("*.ckpt")]
        found.append(max(checkpoint["global_step"] for checkpoint in whole))
        newest = resume.furthest([run], 0)
        assert newest is not None
        assert ShardedCheckpoint(newest).outline()["global_step"] == found[-1]
        printed = capsys.readouterr().err
        assert "skipped" not in printed
        assert all(str(part) in printed for part in run.glob(".*.part"))
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 2)
    assert len(found) > 8
    assert [path.name for path in (tmp_path / str(len(found) - 1)).iterdir()] == ["a.ckpt"]


def test_any_damage_of_any_file_is_detected(folder: Path) -> None:
    ShardedCheckpoint(folder).full_checkpoint()
    for file in folder.iterdir():
        whole = file.read_bytes()
        for content in damaged(whole, flips=150, cuts=15):
            file.write_bytes(content)
            with pytest.raises(UserError, match=r"a\.ckpt"):
                ShardedCheckpoint(folder).full_checkpoint()
        file.unlink()
        with pytest.raises(CheckpointError, match=file.name):
            ShardedCheckpoint(folder).full_checkpoint()
        file.write_bytes(whole)
    ShardedCheckpoint(folder).full_checkpoint()


def forge(folder: Path, name: str, content: bytes) -> None:
    """Change a file and its index entry, as an attacker would."""
    index = json.loads((folder / "index.json").read_text())
    written = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / name).write_bytes(content)
    index["files"][name] = written
    (folder / "index.json").write_text(json.dumps(index))


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def test_what_an_attacker_writes_is_not_run(folder: Path, tmp_path: Path) -> None:
    rest, shard = (folder / n for n in ("rest.pt", "shard-0-of-1.safetensors"))
    kept = {file: file.read_bytes() for file in folder.iterdir()}
    plain = torch.load(rest, weights_only=True)

    def refused(name: str, content: object, match: str) -> None:
        if not isinstance(content, bytes):
            torch.save(content, folder / "made")
            content = (folder / "made").read_bytes()
        forge(folder, name, content)
        with pytest.raises(UserError, match=match):
            ShardedCheckpoint(folder).full_checkpoint()
        for file, whole in kept.items():
            file.write_bytes(whole)

    refused("rest.pt", plain | {"x": Bomb(tmp_path / "ran")}, "more than tensors and plain data")
    refused("rest.pt", pickle.dumps(Bomb(tmp_path / "ran")), "is not a checkpoint")
    refused("shard-0-of-1.safetensors", {"x": Bomb(tmp_path / "ran")}, "shards cannot be read")
    huge = torch.empty(10**12, 2, device="meta")
    refused("rest.pt", plain | {"state_dict": {"a": huge}}, "do not make up")
    for other in (torch.empty(3, 3, device="meta"), torch.empty(2, 2, device="meta")):
        refused("rest.pt", plain | {"state_dict": {"a": other}}, "do not make up")
    refused("rest.pt", plain | {"state_dict": {"a": torch.empty((), device="meta")}}, "cannot be")
    refused("rest.pt", {"state_dict": {}}, "Lightning did not write it")
    refused("shard-0-of-1.safetensors", save({"x": torch.ones(1)}), "shards cannot be read")
    refused("../../a.pt", b"", "lists '../../a.pt'")
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"actionprior_format": 99}))
    with pytest.raises(FormatError, match="update actionprior"):
        ShardedCheckpoint(folder)
    assert shard.exists()
    assert not (tmp_path / "ran").exists()


def test_readers_of_files_refuse_a_folder_and_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    data, unsharded = (
        ToyTrajectories(episodes=6),
        trainer(tmp_path, 1, plugins=[AtomicCheckpointIO()]),
    )
    for reading in (
        lambda: read_checkpoint(folder),
        lambda: Policy.load(folder),
        lambda: unsharded.fit(module(data), data, ckpt_path=folder, weights_only=True),
    ):
        with pytest.raises(CheckpointError, match=f"lightning consolidate {folder} FILE.ckpt"):
            reading()
    for file in (folder, folder / "b.ckpt", tmp_path):
        with pytest.raises(UserError, match="choose another file"):
            consolidate(folder, file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no index\.json"):
        consolidate(tmp_path / "empty", tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        consolidate(tmp_path / "absent.ckpt", tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["prior.ckpt", "prior-best.ckpt"], "folder of checkpoints; give one of them: prior-best"),
        ([f"step-{n}.ckpt" for n in range(7)], r"step-0\.ckpt, .*step-4\.ckpt, …$"),
        (["config.json", "model.safetensors"], "an exported policy; give the checkpoint that it"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    readers: list[Callable[[Path], object]] = [read_checkpoint, load_prior]
    readers += [] if "config.json" in names else [Policy.load]  # it reads exported policies
    for reading in readers:
        with pytest.raises(CheckpointError, match=message):
            reading(tmp_path)


def test_files_and_folders_replace_each_other(folder: Path) -> None:
    save_sharded(tree(2.0), folder)
    assert ShardedCheckpoint(folder).outline()["global_step"] == 2
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, folder)
    assert folder.is_file()
    save_sharded(tree(3.0), folder)
    assert ShardedCheckpoint(folder).outline()["global_step"] == 3
    assert list(folder.parent.iterdir()) == [folder]


def test_a_full_disk_is_reported_and_keeps_what_was_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot be saved: No space left .*is kept"):
        save_sharded(tree(2.0), folder)
    monkeypatch.undo()
    checkpoint, limits = tree(2.0), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be saved: .*File too large.*is kept"):
            save_sharded(checkpoint, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert ShardedCheckpoint(folder).full_checkpoint()["global_step"] == 1
    assert list(folder.parent.iterdir()) == [folder]


def test_last_resumes_from_the_newest_whole_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for age, name in enumerate(("old", "whole", "cut", "torn", "bare")):
        shutil.copytree(folder, tmp_path / f"run/{name}.ckpt")
        os.utime(tmp_path / f"run/{name}.ckpt", (age, age))
    shard = tmp_path / "run/cut.ckpt/shard-0-of-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    (tmp_path / "run/torn.ckpt/rest.pt").unlink()
    (tmp_path / "run/bare.ckpt/index.json").unlink()
    (tmp_path / "run/.0a1b.part").mkdir()
    found = resume.furthest([tmp_path / "run"], 0)
    assert found == tmp_path / "run/whole.ckpt"
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"last: resuming from {found}, step 1"
    for name, why in {
        "cut.ckpt": "is not what was written",
        "torn.ckpt": "rest.pt is missing",
        "bare.ckpt": "has no index.json",
        ".0a1b.part": "was left by a save that was cut short",
    }.items():
        [line] = [line for line in lines if name in line]
        assert why in line
    assert not any("old.ckpt" in line for line in lines)


def test_only_the_best_are_kept(tmp_path: Path) -> None:
    data = ToyTrajectories(episodes=6, batch_size=16)
    kept = ModelCheckpoint(
        tmp_path / "kept",
        "{step}",
        monitor="train/grad_norm",
        save_top_k=2,
        save_last=True,
        every_n_train_steps=1,
    )
    strategy = ShardedStrategy(sharded_checkpoints=True)
    runner = trainer(
        tmp_path,
        5,
        devices=1,
        strategy=strategy,
        callbacks=[kept],
        limit_val_batches=0,
        enable_checkpointing=True,
    )
    runner.fit(module(data), data)
    folders = list((tmp_path / "kept").iterdir())
    assert {str(path) for path in folders} == {*kept.best_k_models, kept.last_model_path}
    assert len(folders) == 3
    steps = [ShardedCheckpoint(path).full_checkpoint()["global_step"] for path in folders]
    assert max(steps) == 5
