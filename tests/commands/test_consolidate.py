"""``lightning consolidate``, after both stages with checkpoints in shards."""

import shutil
from pathlib import Path

import pytest

from actionprior import cli
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.checkpoints.sharded import ShardedCheckpoint
from actionprior.vla import VLAModule
from tests.helpers.command_line import refused
from tests.helpers.process_group import group_of_this_test  # noqa: F401  a fixture
from tests.helpers.synthetic import BrightnessTrunk

SHARDED = [
    "--trainer.strategy=actionprior.ShardedStrategy",
    "--trainer.strategy.sharded_checkpoints=true",
]
SHORT = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.logger=false",
    "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.filename={step}",
    "--trainer.callbacks.every_n_train_steps=2",
]
STAGE1 = [
    "--model=actionprior.MotionPriorModule",
    "--model.architecture={width: 32, latent_width: 16, heads: 2}",
    "--data=tests.helpers.synthetic.ToyTrajectories",
    "--trainer.callbacks.dirpath=one",
]
STAGE2 = [
    "--model=actionprior.VLAModule",
    "--model.trunk=tests.helpers.synthetic.BrightnessTrunk",
    "--model.fusion.width=32",
    "--model.history=off",
    "--model.prior_checkpoint=one/step=2.ckpt",
    "--data=tests.helpers.synthetic.ToyVLA",
    "--trainer.callbacks.dirpath=two",
]


@pytest.mark.slow
def test_both_stages_from_folders_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", *SHORT, *STAGE1, *SHARDED, "--trainer.max_steps=2"])
    cli.main(["fit", *SHORT, *STAGE2, *SHARDED, "--trainer.max_steps=2"])
    shutil.rmtree("one")  # a checkpoint of Stage 2 is complete
    last = ["--ckpt_path=last", "--trainer.max_steps=4"]
    cli.main(["fit", *SHORT, *STAGE2, *SHARDED, *last])
    folder = tmp_path / "two/step=4.ckpt"
    assert f"resuming from {folder.with_name('step=2.ckpt')}, step 2" in capsys.readouterr().err

    message = refused(["fit", *SHORT, *STAGE2, *last], capsys)
    assert (
        f"only ShardedStrategy reads; make it one file: lightning consolidate {folder} " in message
    )
    message = refused(["export", f"--ckpt_path={folder}", "--out=policy"], capsys)
    assert "lightning consolidate" in message
    message = refused(["consolidate", str(folder), str(folder / "policy.ckpt")], capsys)
    assert "choose another file" in message

    cli.main(["consolidate", str(folder), "policy.ckpt"])
    assert read_checkpoint("policy.ckpt").keys() == ShardedCheckpoint(folder).outline().keys()
    VLAModule.load("policy.ckpt", BrightnessTrunk())
    shutil.rmtree(folder)
    cli.main(["fit", *SHORT, *STAGE2, "--ckpt_path=policy.ckpt", "--trainer.max_steps=6"])
    assert (tmp_path / "two/step=6.ckpt").is_file()
    shard = folder.with_name("step=2.ckpt") / "shard-0-of-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "is not what was written" in refused(
        ["consolidate", str(shard.parent), "b.ckpt"], capsys
    )
    assert not Path("b.ckpt").exists()
