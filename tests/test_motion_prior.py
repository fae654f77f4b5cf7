"""Test that Stage 1 learns, reports in the robots' units, resumes exactly and rejects bad input."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import LightningDataModule

from actionprior.checkpoints.prior import load_prior
from actionprior.checkpoints.reading import CheckpointError
from actionprior.errors import UserError
from tests.helpers.stage1_runs import SMALL, StopAt, module, trainer
from tests.helpers.synthetic import ToyTrajectories, ToyVLA


def test_mixed_precision_clips_gradients(tmp_path: Path) -> None:
    data = ToyTrajectories()
    runner = trainer(tmp_path, 3, precision="bf16-mixed", gradient_clip_val=1.0)
    runner.fit(module(data), data)
    assert runner.global_step == 3
    assert torch.isfinite(runner.callback_metrics["train/loss"])


def test_it_learns_and_reports_in_the_robots_units_beside_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ToyTrajectories()
    stage1 = module(data)
    runner = trainer(tmp_path, 120, check_val_every_n_epoch=None, val_check_interval=120)
    runner.fit(stage1, data)
    metrics = {k: float(v) for k, v in runner.callback_metrics.items()}
    for robot in ("panda", "kuka"):
        error = metrics[f"val/{robot}/mae_arm_rad"]
        assert error < 0.75 * metrics[f"val/{robot}/untrained_mae_arm_rad"]
        assert metrics[f"val/{robot}/copy_last_mae_arm_rad"] > 0
        assert metrics[f"val/{robot}/error_over_copy_last"] > 0
        assert metrics[f"val/{robot}/error_over_untrained"] < 0.75
    assert "val/panda/mae_gripper" in metrics
    printed = capsys.readouterr().out
    assert "copy_last" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("kuka mae_arm_rad")]
    names = ("mae", "copy_last_mae", "untrained_mae")
    wanted = [metrics[f"val/kuka/{n}_arm_rad"] for n in names]
    assert [float(f) for f in row[2:]] == pytest.approx(wanted, abs=1e-4)
    assert {"train/grad_norm", "train/learning_rate", "train/loss", "val/loss"} <= set(metrics)
    assert metrics["train/share/panda"] + metrics["train/share/kuka"] == pytest.approx(1.0)
    assert metrics["train/share/panda"] == pytest.approx(0.5, abs=0.1)


def test_the_untrained_baseline_is_what_an_untrained_module_scores(tmp_path: Path) -> None:
    data = ToyTrajectories()
    stage1, runner = module(data, integration_steps=3), trainer(tmp_path, 1)
    data.setup("fit")
    stage1.prior.normalizer.fit(data.statistics_sample())
    (metrics,) = runner.validate(stage1, data, verbose=False)
    for robot in ("panda", "kuka"):
        assert metrics[f"val/{robot}/mae_arm_rad"] == pytest.approx(
            metrics[f"val/{robot}/untrained_mae_arm_rad"], rel=1e-5
        )


def test_a_resumed_run_ends_bit_equal(tmp_path: Path) -> None:
    whole = module(ToyTrajectories())
    trainer(tmp_path, 16).fit(whole, ToyTrajectories())
    half = trainer(tmp_path, 16, callbacks=[StopAt(7, tmp_path / "seven.ckpt")])
    half.fit(module(ToyTrajectories()), ToyTrajectories())
    second = module(ToyTrajectories())
    trainer(tmp_path, 16).fit(
        second, ToyTrajectories(), ckpt_path=tmp_path / "seven.ckpt", weights_only=True
    )
    for (name, wanted), found in zip(
        whole.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(wanted, found), name


def test_a_checkpoint_describes_its_prior(tmp_path: Path) -> None:
    data, runner = ToyTrajectories(), trainer(tmp_path, 2)
    stage1 = module(data)
    runner.fit(stage1, data)
    runner.save_checkpoint(tmp_path / "one.ckpt")
    prior = load_prior(tmp_path / "one.ckpt")
    assert prior.architecture == SMALL
    assert [e.name for e in prior.embodiments] == ["panda", "kuka"]
    for name, value in stage1.prior.state_dict().items():
        assert torch.equal(prior.state_dict()[name], value), name


def test_bad_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    data, runner = ToyTrajectories(), trainer(tmp_path, 1)
    runner.fit(module(data), data)
    whole, cut, other = (tmp_path / n for n in ("whole.ckpt", "cut.ckpt", "other.ckpt"))
    runner.save_checkpoint(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6"}, other)
    with pytest.raises(CheckpointError, match=r"cut\.ckpt is cut short"):
        load_prior(cut)
    with pytest.raises(CheckpointError, match=r"other\.ckpt holds no motion prior"):
        load_prior(other)
    with pytest.raises(CheckpointError, match=r"absent\.ckpt does not exist"):
        load_prior(tmp_path / "absent.ckpt")


def test_bad_set_ups_are_refused(tmp_path: Path) -> None:
    data = ToyTrajectories(chunk_length=8)
    with pytest.raises(UserError, match="chunk_length is 8, but chunk_length is 15 in the model"):
        trainer(tmp_path, 1).fit(module(data), data)
    with pytest.raises(UserError, match="no normalisation statistics for 'panda', 'kuka'"):
        trainer(tmp_path, 1).validate(module(ToyTrajectories()), ToyTrajectories(), verbose=False)
    with pytest.raises(UserError, match="needs an EmbodiedDataModule, found LightningDataModule"):
        trainer(tmp_path, 1).fit(module(data), LightningDataModule())
    broken = module(ToyTrajectories(), learning_rate=1e30, warmup_steps=0)
    with pytest.raises(
        UserError, match=r"training loss (nan|inf) on rank 0.* 11 bad steps in a row"
    ):
        trainer(tmp_path, 50).fit(broken, ToyTrajectories())


def test_a_checkpoint_of_another_prior_is_refused(tmp_path: Path) -> None:
    """Even if all shapes fit: statistics and soft tokens would belong to another robot."""
    data, saved = ToyTrajectories(robots="delta"), tmp_path / "delta.ckpt"
    runner = trainer(tmp_path, 1)
    runner.fit(module(data), data)
    runner.save_checkpoint(saved)
    other = ToyTrajectories(robots="position")
    message = (
        r"delta\.ckpt was trained on the robots \['panda'\], in this order, but the recipe has "
        r"\['kuka'\]"
    )
    for verb in ("fit", "validate", "test"):
        with pytest.raises(CheckpointError, match=message):
            getattr(trainer(tmp_path, 2), verb)(module(other), other, ckpt_path=saved)
    faster = ToyTrajectories(robots="delta")
    faster.robots = [replace(faster.robots[0], control_hz=20)]
    message = r"'panda' differs: control_hz is 10(\.0)? in the checkpoint and 20 in the recipe"
    with pytest.raises(CheckpointError, match=message):
        trainer(tmp_path, 2).fit(module(faster), faster, ckpt_path=saved)
    wider = module(data, architecture=replace(SMALL, width=64))
    message = r"architecture\.width is 32 in the checkpoint and 64 in the recipe"
    with pytest.raises(CheckpointError, match=message):
        trainer(tmp_path, 2).fit(wider, data, ckpt_path=saved)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    data = ToyTrajectories()
    with pytest.raises(UserError, match=r"no length in steps: set trainer\.max_steps"):
        trainer(tmp_path, -1, max_epochs=-1, max_time="00:00:01:00").fit(module(data), data)
    with pytest.raises(UserError, match=r"trainer\.precision is bf16-true; expected one of"):
        trainer(tmp_path, 1, precision="bf16-true").fit(module(data), data)
    with pytest.raises(UserError, match=r"width is 32, which is not a multiple of .*heads, 5"):
        module(data, architecture=replace(SMALL, heads=5))
    seen = ToyVLA()
    with pytest.raises(UserError, match="takes TrajectoryBatch, and ToyVLA gives VLABatch"):
        trainer(tmp_path, 1).fit(module(seen), seen)


def saved_prior(folder: Path, data: ToyTrajectories, steps: int = 3) -> Path:
    runner = trainer(folder, steps, limit_val_batches=0)
    runner.fit(module(data), data)
    runner.save_checkpoint(folder / "before.ckpt")
    return folder / "before.ckpt"


def test_a_prior_is_continued_and_new_robots_join(tmp_path: Path) -> None:
    before = saved_prior(tmp_path, ToyTrajectories(robots="position"))
    data, prior = ToyTrajectories(), load_prior(before)  # first the new robot, then the known one
    stage1 = module(data, architecture=None, prior_checkpoint=str(before))
    assert [e.name for e in stage1.prior.embodiments] == ["kuka", "panda"]
    assert stage1.prior.architecture == SMALL
    shared = {k: v for k, v in prior.state_dict().items() if not k.startswith("normalizer")}
    for name, value in shared.items():
        assert torch.equal(stage1.prior.state_dict()[name][: len(value)], value), name
    runner = trainer(tmp_path, 5, check_val_every_n_epoch=None, val_check_interval=5)
    runner.fit(stage1, data)
    statistics = prior.normalizer.state_dict()
    for name, value in stage1.prior.normalizer.state_dict().items():
        assert torch.equal(value[:1], statistics[name]), name
    fresh = module(data)
    fresh.prior.normalizer.fit(data.statistics_sample())
    assert torch.equal(
        stage1.prior.normalizer.action_scale[1], fresh.prior.normalizer.action_scale[0]
    )
    metrics = runner.callback_metrics
    assert {"val/panda/mae_arm_rad", "val/kuka/mae_arm_rad"} <= set(metrics)
    assert {"train/share/panda", "train/share/kuka"} <= set(metrics)
    assert float(metrics["val/kuka/copy_last_mae_arm_rad"]) > 0
    runner.save_checkpoint(tmp_path / "after.ckpt")
    assert [e.name for e in load_prior(tmp_path / "after.ckpt").embodiments] == ["kuka", "panda"]


def test_a_prior_is_continued_with_some_of_its_robots(tmp_path: Path) -> None:
    before, kuka = saved_prior(tmp_path, ToyTrajectories()), ToyTrajectories(robots="position")
    stage1 = module(kuka, prior_checkpoint=str(before))
    tokens = stage1.prior.dataset_EPW.detach().clone()
    trainer(tmp_path, 4, limit_val_batches=0).fit(stage1, kuka)
    moved = (stage1.prior.dataset_EPW != tokens).flatten(1).any(1)
    assert moved.tolist() == [False, True]  # panda, kuka


def test_what_cannot_be_continued_is_refused(tmp_path: Path) -> None:
    data = ToyTrajectories(robots="position")
    before = saved_prior(tmp_path, data)
    message = r"before\.ckpt.*: architecture\.width is 32 in the checkpoint and 64 in the recipe"
    with pytest.raises(CheckpointError, match=message):
        module(data, architecture=replace(SMALL, width=64), prior_checkpoint=str(before))
    data.robots = [replace(data.robots[0], control_hz=35)]
    message = r"'kuka' differs: control_hz is 20(\.0)? in the checkpoint and 35 in the recipe"
    with pytest.raises(CheckpointError, match=message):
        module(data, prior_checkpoint=str(before))
