"""Test what a run says when it starts and when it ends."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from actionprior.training.run_report import held_out_table, success_lines
from callbacks import BestCheckpoint, StepCheckpoint
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


def printed(
    folder: Path, capsys: pytest.CaptureFixture[str], steps: int = 6, **options: object
) -> list[str]:
    data = ToyTrajectories(episodes=12, batch_size=16)
    trainer(folder, steps, **options).fit(module(data), data)
    return capsys.readouterr().out.splitlines()


def test_a_run_says_what_it_trains_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, length, titles, panda, kuka = printed(tmp_path, capsys, limit_val_batches=0)[:5]
    count = sum(p.numel() for p in module(ToyTrajectories()).parameters())
    assert head == (
        f"MotionPriorModule: {count:,} parameters, of which {count:,} train, on cpu in 32-true"
    )
    assert length == "6 steps of 16 windows"
    assert titles.split() == ["robot", "episodes", "held", "out", "frames", "hours"]
    # Twelve episodes of 20 frames for each robot, of which every sixth of both is held out.
    assert panda.split() == ["panda", "10", "2", "240", f"{240 / 10 / 3600:.2f}"]
    assert kuka.split()[:4] == ["kuka", "10", "2", "240"]


@pytest.mark.parametrize("steps", [-1, 100])
def test_epochs_are_announced_in_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    short = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 0}
    lines = printed(tmp_path, capsys, steps, **short)
    assert lines[1] == "6 steps of 16 windows"
    assert any(line.startswith("trained 6 steps in 0.") for line in lines)


def test_a_run_ends_with_its_errors_its_checkpoints_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saves = [
        StepCheckpoint("p-step", 4, tmp_path / "kept"),
        BestCheckpoint("p-best", dirpath=tmp_path / "kept"),
        ModelCheckpoint(tmp_path / "kept", "p", save_on_train_epoch_end=True),
    ]
    checking = {"check_val_every_n_epoch": None, "val_check_interval": 4}
    lines = printed(tmp_path, capsys, callbacks=saves, enable_checkpointing=True, **checking)
    assert any(line.startswith("trained 6 steps in 0.") for line in lines)
    assert "these errors are of step 4" in lines
    assert "checkpoint: kept/p.ckpt (step 6)" in lines
    (best,) = [line for line in lines if line.startswith("best val/mae_normalized 0.")]
    assert best.endswith(": kept/p-best.ckpt")
    assert "--model.prior_checkpoint kept/p.ckpt" in lines[-1]


def test_a_run_without_validation_or_checkpoint_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(tmp_path, capsys, limit_val_batches=0)
    assert lines[-1] == "no checkpoint was saved"
    assert lines[-2].startswith("no held-out error was measured: give trainer.val_check_interval")


def test_a_resumed_run_without_a_step_left_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ToyTrajectories(episodes=12, batch_size=16)
    first = trainer(tmp_path, 4, limit_val_batches=0)
    first.fit(module(data), data)
    first.save_checkpoint(tmp_path / "four.ckpt")
    capsys.readouterr()
    trained = module(data)
    trainer(tmp_path, 3, limit_val_batches=0).fit(trained, data, ckpt_path=tmp_path / "four.ckpt")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "nothing was trained: the checkpoint is at step 4 already, and trainer.max_steps is 3"
    )


def test_a_run_without_batches_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(tmp_path, capsys, limit_train_batches=0, limit_val_batches=0)
    assert lines[-1] == "nothing was trained: trainer.limit_train_batches is 0"


def test_errors_above_the_baseline_are_pointed_out() -> None:
    values = {"val/a/mae_arm_rad": 0.2, "val/a/copy_last_mae_arm_rad": 0.1, "val/loss": 1.0}
    values |= {
        "val/a/mae_grip": 0.1,
        "val/a/copy_last_mae_grip": 0.3,
        "val/a/bend_predicted_x": 1.0,
    }
    table = held_out_table({key: torch.tensor(value) for key, value in values.items()}, "policy")
    assert [line.split() for line in table.splitlines()][:3] == [
        ["held-out", "mean", "absolute", "error", "policy", "copy_last"],
        ["a", "mae_arm_rad", "0.2000", "0.1000"],
        ["a", "mae_grip", "0.1000", "0.3000"],
    ]
    assert table.splitlines()[3].startswith("not better than copying one action: a arm_rad; train")
    assert held_out_table({}, "policy") == ""


def test_success_is_listed_by_environment() -> None:
    values = {"rollout/lab/Push-v0/success_rate": 0.25, "rollout/success_rate": 0.25}
    found = success_lines({key: torch.tensor(value) for key, value in values.items()})
    assert found == ["success in lab/Push-v0: 25%"]
