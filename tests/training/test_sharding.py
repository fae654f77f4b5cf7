"""FSDP2 learns what one process learns, and its checkpoints equal those of DDP."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import strategies
from lightning.pytorch.callbacks import EMAWeightAveraging

from actionprior.checkpoints.reading import read_checkpoint
from actionprior.errors import UserError
from actionprior.training.settings import grouped_settings
from actionprior.training.sharding import ShardedStrategy
from actionprior.vla import VLAModule
from tests.helpers.process_group import ROOT, group_of_this_test  # noqa: F401  a fixture
from tests.helpers.stage1_runs import StopAt, module, trainer
from tests.helpers.stage2_runs import Start
from tests.helpers.synthetic import BrightnessTrunk, ToyTrajectories, ToyVLA


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage1")
    data, runner = ToyTrajectories(), trainer(folder, 2, limit_val_batches=0)
    runner.fit(module(data), data)
    runner.save_checkpoint(folder / "prior.ckpt")
    return folder / "prior.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("history", ["off", "encoder"])
def test_two_ranks_learn_what_one_process_learns(
    tmp_path: Path, stage1: Path, history: str
) -> None:
    for strategy, ranks in (("sharded", "2"), ("auto", "1")):
        words = [str(stage1), history, str(tmp_path), strategy, ranks]
        command = [sys.executable, "-m", "tests.helpers.ranks_vla", *words]
        subprocess.run(command, check=True, timeout=200, cwd=ROOT)
    reports = [json.loads((tmp_path / f"rank{r}of2.json").read_text()) for r in range(2)]
    single = json.loads((tmp_path / "rank0of1.json").read_text())
    assert reports[0]["weights"] == reports[1]["weights"]
    losses = np.mean([rank["loss"] for rank in reports], axis=0)
    np.testing.assert_allclose(losses, single["loss"], rtol=2e-4)

    saved, expected = (read_checkpoint(tmp_path / f"of{n}.ckpt") for n in (2, 1))
    assert saved["state_dict"].keys() == expected["state_dict"].keys()
    trained = [k for k in expected["state_dict"] if history == "encoder" or ".encoder." not in k]
    for key in trained:
        torch.testing.assert_close(
            saved["state_dict"][key], expected["state_dict"][key], rtol=0, atol=2e-4
        )
    VLAModule.load(tmp_path / "of2.ckpt", BrightnessTrunk())

    # One process resumes from it, moments included.
    robots = [e.to_dict() for e in ToyVLA().embodiments]
    settings = {"history": history, "decay_fraction": 0.5, "width": 32, "heads": 2}
    policy = VLAModule(robots, BrightnessTrunk(), str(stage1), **grouped_settings(settings))
    runner = trainer(tmp_path, 7, limit_val_batches=0)
    runner.fit(policy, ToyVLA(), ckpt_path=tmp_path / "of2.ckpt", weights_only=True)
    assert runner.global_step == 7
    assert {int(s["step"]) for s in runner.optimizers[0].state.values()} >= {7}


def one_process(folder: Path, steps: int, **options: object) -> object:
    """A trainer whose one process holds all shards."""
    return trainer(folder, steps, devices=1, strategy=ShardedStrategy(), **options)


def test_a_sharded_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), tmp_path / "saved.ckpt"
    settings = {"limit_val_batches": 0, "gradient_clip_val": 1.0}
    whole_run = one_process(tmp_path, 6, **settings)
    whole_run.fit(module(data), data)
    whole_run.save_checkpoint(tmp_path / "whole.ckpt")
    stopped = one_process(tmp_path, 6, callbacks=[StopAt(3, saved)], **settings)
    stopped.fit(module(data), data)
    assert stopped.global_step == 3
    resumed = one_process(tmp_path, 6, **settings)
    resumed.fit(module(data), data, ckpt_path=saved, weights_only=True)
    resumed.save_checkpoint(tmp_path / "resumed.ckpt")
    found, expected = (read_checkpoint(tmp_path / f"{n}.ckpt") for n in ("resumed", "whole"))
    for key, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][key], value), key


def test_a_sharded_run_resumes_from_a_file_of_an_unsharded_run(tmp_path: Path) -> None:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), tmp_path / "saved.ckpt"
    settings = {"limit_val_batches": 0, "gradient_clip_val": 1.0}
    whole_run = trainer(tmp_path, 6, **settings)
    whole_run.fit(module(data), data)
    whole_run.save_checkpoint(tmp_path / "whole.ckpt")
    trainer(tmp_path, 6, callbacks=[StopAt(3, saved)], **settings).fit(module(data), data)
    resumed = one_process(tmp_path, 6, **settings)
    resumed.fit(module(data), data, ckpt_path=saved, weights_only=True)
    resumed.save_checkpoint(tmp_path / "resumed.ckpt")
    found, expected = (read_checkpoint(tmp_path / f"{n}.ckpt") for n in ("resumed", "whole"))
    for key, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][key], value, rtol=0, atol=1e-5)


def test_training_resumes_from_raw_weights_of_a_file_with_averages(tmp_path: Path) -> None:
    data, saved, start = (
        ToyTrajectories(episodes=6, batch_size=16),
        tmp_path / "saved.ckpt",
        Start(),
    )
    average = EMAWeightAveraging(decay=0.9, update_starting_at_step=0)
    stop = [average, StopAt(3, saved)]
    trainer(tmp_path, 6, limit_val_batches=0, callbacks=stop).fit(module(data), data)
    resumed = one_process(tmp_path, 6, limit_val_batches=0, callbacks=[start])
    with pytest.warns(UserWarning, match=r"saved\.ckpt has averaged and raw weights"):
        resumed.fit(module(data), data, ckpt_path=saved, weights_only=True)
    held = torch.load(saved, weights_only=True)
    assert start.weights.keys() == held["current_model_state"].keys()
    for name, found in start.weights.items():
        assert torch.equal(found, held["current_model_state"][name]), name


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), tmp_path / "saved.ckpt"
    one_process(tmp_path, 2, limit_val_batches=0, callbacks=[StopAt(1, saved)]).fit(
        module(data), data
    )
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        one_process(tmp_path, 3).fit(module(data), data, ckpt_path=saved, weights_only=True)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), tmp_path / "saved.ckpt"
    other, runner = module(data), one_process(tmp_path, 1, limit_val_batches=0)
    other.more = torch.nn.Linear(2, 2)
    runner.fit(other, data)
    runner.save_checkpoint(saved)
    with pytest.raises(UserError, match=r"saved\.ckpt: weights do not fit the model .*more"):
        one_process(tmp_path, 2).fit(module(data), data, ckpt_path=saved, weights_only=True)
    whole = torch.load(saved, weights_only=True)
    for name in ("more.weight", "more.bias"):
        del whole["state_dict"][name]
    torch.save(whole, saved)
    with pytest.raises(UserError, match=r"saved\.ckpt: moments do not fit the optimiser"):
        one_process(tmp_path, 2).fit(module(data), data, ckpt_path=saved, weights_only=True)


def test_what_cannot_be_sharded_is_refused(tmp_path: Path) -> None:
    data = ToyTrajectories(episodes=6)
    average = EMAWeightAveraging(decay=0.9)
    with pytest.raises(UserError, match="EMAWeightAveraging cannot average sharded weights"):
        one_process(tmp_path, 1, callbacks=[average]).fit(module(data), data)
    other = strategies.ModelParallelStrategy(1, 1)
    with pytest.raises(UserError, match=r"ModelParallelStrategy shards .*use actionprior\.Sh"):
        trainer(tmp_path, 1, devices=1, strategy=other).fit(module(data), data)
