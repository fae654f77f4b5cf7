"""``--ckpt_path last``: the whole checkpoint with the most steps, and what is skipped."""

import os
from pathlib import Path

import pytest
import torch

from actionprior import cli
from actionprior.checkpoints import resume
from tests.helpers.command_line import checkpoint_of
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


def aged(path: Path, age: int) -> Path:
    """Make ``path`` look as if it was written ``age`` seconds ago."""
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))
    return path


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of Stage 1 after two steps."""
    place = tmp_path_factory.mktemp("stage1")
    data, runner = ToyTrajectories(episodes=6), trainer(place, 2, limit_val_batches=0)
    runner.fit(module(data), data)
    runner.save_checkpoint(place / "a.ckpt")
    return (place / "a.ckpt").read_bytes()


def test_damaged_foreign_and_half_written_files_are_skipped_and_reported(
    tmp_path: Path, stage1: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, age, content in [
        ("run/old.ckpt", 60, stage1),
        ("run/whole.ckpt", 50, stage1),
        ("run/cut.ckpt", 40, stage1[: len(stage1) // 2]),
        ("run/flipped.ckpt", 30, stage1.replace(b"\x00" * 64, b"\x00" * 63 + b"\x01", 1)),
        ("other/empty.ckpt", 20, b""),
        ("run/.77.part", 0, stage1[:100]),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        aged(tmp_path / name, age)
    whole = torch.load(tmp_path / "run/whole.ckpt", weights_only=True)
    del whole["optimizer_states"]
    torch.save(whole, aged(tmp_path / "run/cut.ckpt", 0).with_name("bare.ckpt"))
    torch.save(whole | {"optimizer_states": [], "vla": {}}, tmp_path / "run/stage2.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other/foreign.ckpt")
    (tmp_path / "run/last.ckpt").symlink_to("gone.ckpt")
    (tmp_path / "run/sharded.ckpt").mkdir()
    found = resume.furthest([tmp_path / "run", tmp_path / "other", tmp_path / "absent"], 1)
    assert found == tmp_path / "run/whole.ckpt"
    printed = capsys.readouterr().err
    lines = printed.splitlines()
    for name, why in {
        "cut.ckpt": "is cut short",
        "flipped.ckpt": "is damaged",
        "empty.ckpt": "is cut short",
        "bare.ckpt": "holds only weights",
        "stage2.ckpt": "is of Stage 2, expected one of Stage 1",
        "foreign.ckpt": "has no 'pytorch-lightning_version'",
        "gone.ckpt": "does not exist",
        "sharded.ckpt": "has no index.json",
    }.items():
        [line] = [line for line in lines if name in line]
        assert line.startswith("last: skipped: ")
        assert why in line
    assert "77.part was left by a save that was cut short" in printed
    assert lines[-1] == f"last: resuming from {found}, step 2"
    assert "old.ckpt" not in printed
    assert resume.furthest([tmp_path / "other"], 1) is None
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"last: no whole checkpoint of this model under {tmp_path / 'other'}: starting from scratch"
    )


def test_steps_count_and_not_the_time_of_writing(
    tmp_path: Path, stage1: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.ckpt").write_bytes(stage1)
    checkpoint = torch.load(tmp_path / "two.ckpt", weights_only=True)
    for name, step, age in (("late", 7, 50), ("best", 5, 10), ("same", 7, 90)):
        torch.save(checkpoint | {"global_step": step}, tmp_path / f"{name}.ckpt")
        aged(tmp_path / f"{name}.ckpt", age)
    assert resume.furthest([tmp_path], 1) == tmp_path / "late.ckpt"
    assert capsys.readouterr().err == f"last: resuming from {tmp_path / 'late.ckpt'}, step 7\n"


def test_checkpoints_of_other_robots_are_passed_over(
    tmp_path: Path, stage1: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.ckpt").write_bytes(stage1)
    found = tmp_path / "two.ckpt"
    assert resume.furthest([tmp_path], 1, ["panda", "kuka"]) == found
    assert resume.furthest([tmp_path], 1, ["kuka"], more=True) == found
    capsys.readouterr()
    for robots, more in ((["kuka"], False), (["kuka", "panda"], False), (["ur5e"], True)):
        assert resume.furthest([tmp_path], 1, robots, more=more) is None
        assert capsys.readouterr().err.splitlines()[0] == (
            f"last: skipped: checkpoint {found} is of panda, kuka; the recipe's robots are "
            f"{', '.join(robots)}"
        )


def test_the_command_resumes_from_the_newest_whole_checkpoint(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["fit", "--config", "recipe.yaml", "--ckpt_path", "last"]
    keep = [
        "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
        "--trainer.callbacks.dirpath=kept",
    ]
    cli.main([*words, *keep])
    assert "under outputs, kept: starting from scratch" in capsys.readouterr().err
    [first] = (folder / "kept").glob("*.ckpt")
    cli.main([*words, *keep, "--trainer.max_epochs=2"])
    assert f"resuming from {first}, step 4" in capsys.readouterr().err
    second = max((folder / "kept").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    second.write_bytes(second.read_bytes()[:-400])
    cli.main([*words, "--trainer.max_epochs=3"])  # `kept` is not this run's
    assert "under outputs: starting from scratch" in capsys.readouterr().err
    assert checkpoint_of(folder, 2).exists()
    cli.main(["test", *words[1:], "--trainer.default_root_dir=outputs"])
    assert "resuming from" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        cli.main(["test", *words[1:], "--trainer.default_root_dir=empty"])
    assert stop.value.code == 2
    assert "there is no checkpoint to test" in capsys.readouterr().err


def test_names_are_printed_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "\x1b[31mred\u202e.ckpt").write_bytes(b"x")
    resume.furthest([tmp_path], 1)
    said = capsys.readouterr().err
    assert "skipped: checkpoint" in said
    assert said.replace("\n", "").isprintable()
