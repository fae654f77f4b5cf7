"""Test training and acting on a GPU: ``CUDA_VISIBLE_DEVICES=0 pytest tests/test_cuda.py``."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from actionprior.checkpoints.reading import read_checkpoint
from actionprior.networks.trunks import SmallTrunk
from actionprior.policy import Policy
from actionprior.training.settings import grouped_settings
from actionprior.training.sharding import ShardedStrategy
from actionprior.vla import VLAModule
from callbacks import CheckpointActivations, CompileLayers
from tests.helpers.point_module import PointModule, evaluation
from tests.helpers.policies import observation, tiny_network
from tests.helpers.stage1_runs import SMALL, StopAt, module, trainer
from tests.helpers.synthetic import ToyTrajectories, ToyVLA

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU, or CUDA_VISIBLE_DEVICES hides it"
)

MIXED = {"precision": "bf16-mixed", "gradient_clip_val": 1.0}


def on_gpu(folder: Path, steps: int, **options: Any) -> Any:
    return trainer(folder, steps, **{"accelerator": DEVICE, "devices": 1, **options})


def vla(data: ToyVLA, prior: str = "", **settings: Any) -> VLAModule:
    torch.manual_seed(0)
    robots = [e.to_dict() for e in data.embodiments]
    sizes = {"width": 32, "heads": 2, "depth": 1, "warmup_steps": 2, **settings}
    architecture = None if prior else SMALL
    return VLAModule(robots, SmallTrunk(grid=1), prior, architecture, **grouped_settings(sizes))


class Losses(Callback):
    """Record the training losses of a run."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: object) -> None:
        self.found.append(float(trainer.callback_metrics["train/loss"]))


class NeverWaits(Callback):
    """End a run whose forward or backward pass waits for the device."""

    def on_train_batch_start(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def on_after_backward(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


def fit(
    folder: Path, learner: Any, data: Any, steps: int, *callbacks: Callback, **options: Any
) -> Any:
    losses = Losses()
    runner = on_gpu(folder, steps, limit_val_batches=0, callbacks=[*callbacks, losses], **options)
    runner.fit(learner, data)
    return runner, losses.found


def test_both_stages_learn_and_validate_in_bfloat16(tmp_path: Path) -> None:
    data, average = ToyTrajectories(), EMAWeightAveraging(decay=0.9)
    runner = on_gpu(tmp_path, 20, callbacks=[average], val_check_interval=5, **MIXED)
    runner.fit(module(data), data)
    assert runner.callback_metrics["val/mae_normalized"] > 0
    runner.save_checkpoint(tmp_path / "prior.ckpt")
    seen = ToyVLA()
    policy = vla(seen, str(tmp_path / "prior.ckpt"), decay_fraction=0.5, prefix_steps=3)
    runner = on_gpu(tmp_path, 6, val_check_interval=3, **MIXED)
    runner.fit(policy, seen)
    assert runner.callback_metrics["val/mae_normalized"] > 0
    runner.save_checkpoint(tmp_path / "policy.ckpt")
    batch = runner.predict(policy, seen)[0]
    assert torch.isfinite(batch).all()
    VLAModule.load(tmp_path / "policy.ckpt")


def test_the_gpu_learns_what_the_cpu_learns(tmp_path: Path) -> None:
    found = []
    for accelerator in (DEVICE, "cpu"):
        data = ToyTrajectories(episodes=6, batch_size=16)
        _, losses = fit(tmp_path, module(data), data, 6, accelerator=accelerator)
        data = ToyVLA(episodes=6, batch_size=16)
        _, seen = fit(tmp_path, vla(data), data, 4, accelerator=accelerator)
        found.append(losses + seen)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


@pytest.mark.parametrize("history", ["off", "encoder", "mlp"])
def test_no_pass_waits_for_the_gpu(tmp_path: Path, history: str) -> None:
    data = ToyTrajectories()
    fit(tmp_path, module(data), data, 3, NeverWaits(), log_every_n_steps=50, **MIXED)
    seen = ToyVLA()
    fit(
        tmp_path,
        vla(seen, history=history, decay_fraction=1.0),
        seen,
        3,
        NeverWaits(),
        log_every_n_steps=50,
        **MIXED,
    )


def test_a_resumed_run_ends_like_one_without_a_stop(tmp_path: Path) -> None:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), tmp_path / "three.ckpt"
    _, whole = fit(tmp_path, module(data), data, 6)
    _, first = fit(tmp_path, module(data), data, 6, StopAt(3, saved))
    losses = Losses()
    on_gpu(tmp_path, 6, limit_val_batches=0, callbacks=[losses]).fit(
        module(data), data, ckpt_path=saved, weights_only=True
    )
    np.testing.assert_allclose([*first, *losses.found], whole, rtol=1e-4)


def test_a_bad_loss_is_not_learnt_from(tmp_path: Path) -> None:
    class Poison(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            if number == 1:
                batch.action_BHA.fill_(torch.nan)

    data = ToyTrajectories(episodes=6, batch_size=16)
    learner = module(data)
    with pytest.warns(UserWarning, match="skipped: step 1 "):
        fit(tmp_path, learner, data, 3, Poison(), **MIXED)
    assert learner.bad_steps.skipped == 1
    assert all(torch.isfinite(p).all() for p in learner.parameters())


@pytest.mark.parametrize("strategy", [ShardedStrategy, DDPStrategy])
def test_strategies_of_many_gpus_on_one(tmp_path: Path, strategy: Any) -> None:
    try:
        data = ToyTrajectories(episodes=6, batch_size=16)
        runner, losses = fit(tmp_path, module(data), data, 3, strategy=strategy(), **MIXED)
        runner.save_checkpoint(tmp_path / "saved.ckpt")
    finally:
        distributed.destroy_process_group()
    _, expected = fit(tmp_path, module(data), data, 3, **MIXED)
    np.testing.assert_allclose(losses, expected, rtol=2e-2)
    assert all(
        v.device.type == "cpu"
        for v in read_checkpoint(tmp_path / "saved.ckpt")["state_dict"].values()
    )


@pytest.mark.parametrize("layers", [CheckpointActivations, CompileLayers])
def test_layers_recomputed_or_compiled_learn_the_same(tmp_path: Path, layers: Any) -> None:
    found = []
    for callbacks in ([], [layers()]):
        data = ToyVLA(episodes=6, batch_size=16)
        found.append(fit(tmp_path, vla(data), data, 3, *callbacks)[1])
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


def test_a_policy_acts_as_on_the_cpu() -> None:
    there, here = (Policy(tiny_network(), device=device) for device in (DEVICE, "cpu"))
    for step in range(6):
        seen = observation(here.robot, step)
        np.testing.assert_allclose(there.select_action(seen), here.select_action(seen), atol=2e-3)
    half = Policy(tiny_network(), device=DEVICE, precision=torch.bfloat16)
    assert np.isfinite(half.predict_chunk(observation(half.robot))).all()


def test_rollouts_within_a_run(tmp_path: Path) -> None:
    class OnGpu(PointModule):
        def predict_chunk(self, observation: Any, noise_BHA: Any) -> Any:
            assert noise_BHA.device.type == DEVICE
            assert observation.state_BS.device.type == DEVICE
            move = partial(move_data_to_device, device="cpu")
            chunk_BHA = self.policy.predict_chunk(move(observation), move(noise_BHA))
            return self.gain.detach() * chunk_BHA.to(DEVICE)

    runner = on_gpu(tmp_path, 4, callbacks=[evaluation(every_n_steps=2, max_steps=20)])
    runner.fit(OnGpu())
    assert 0 <= runner.callback_metrics["rollout/success_rate"] <= 1
