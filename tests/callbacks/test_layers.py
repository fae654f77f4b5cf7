"""Test that recomputing and compiling layers change the cost of a step, not its result."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.autograd.graph import saved_tensors_hooks

from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.language_blocks import LanguageSize
from actionprior.networks.motion_prior import PriorArchitecture
from callbacks import CheckpointActivations, CompileLayers
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories

DEEP = PriorArchitecture(width=32, latent_width=16, encoder_depth=4, decoder_depth=4, heads=2)
LANGUAGE = replace(DEEP, language=LanguageSize(kv_heads=1, head_width=16, mlp_width=64))


class SavedBytes(Callback):
    """Count the bytes that the forward pass saves for the backward pass."""

    def __init__(self) -> None:
        self.bytes = 0

    def on_train_batch_start(self, *_: object) -> None:
        self.bytes, self.seen = 0, set[int]()
        self.hooks = saved_tensors_hooks(self._count, lambda tensor: tensor)
        self.hooks.__enter__()

    def on_before_backward(self, *_: object) -> None:
        self.hooks.__exit__(None, None, None)

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def fit(
    folder: Path, architecture: PriorArchitecture, *callbacks: Callback
) -> tuple[MotionPriorModule, int]:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), SavedBytes()
    trained = module(data, architecture=architecture)
    runner = trainer(folder, 4, limit_val_batches=0, callbacks=[*callbacks, saved])
    runner.fit(trained, data)
    runner.save_checkpoint(folder / "prior.ckpt")
    return trained, saved.bytes


@pytest.fixture(params=[DEEP, LANGUAGE], ids=["small", "language"])
def architecture(request: pytest.FixtureRequest) -> PriorArchitecture:
    found: PriorArchitecture = request.param
    return found


@pytest.fixture
def plain(tmp_path: Path, architecture: PriorArchitecture) -> tuple[MotionPriorModule, int]:
    return fit(tmp_path, architecture)


def test_recomputed_layers_save_memory_and_train_the_same(
    tmp_path: Path, plain: tuple[MotionPriorModule, int], architecture: PriorArchitecture
) -> None:
    average = EMAWeightAveraging(decay=0.5)
    trained, saved = fit(tmp_path, architecture, CheckpointActivations(), average)
    averaged, _ = fit(tmp_path, architecture, EMAWeightAveraging(decay=0.5))
    assert saved < 0.5 * plain[1]
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, msg=name, equal_nan=True)


@pytest.mark.slow
def test_compiled_layers_train_the_same(
    tmp_path: Path, plain: tuple[MotionPriorModule, int], architecture: PriorArchitecture
) -> None:
    compiling = CompileLayers(backend="aot_eager")
    trained, _ = fit(tmp_path, architecture, CheckpointActivations(), compiling)
    assert trained.prior.decoder.blocks[0]._compiled_call_impl is not None
    assert trained.state_dict().keys() == plain[0].state_dict().keys()
    for name, value in plain[0].state_dict().items():
        found = trained.state_dict()[name]
        torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-4, msg=name, equal_nan=True)
    assert math.isfinite(sum(float(p.sum()) for p in trained.parameters()))
