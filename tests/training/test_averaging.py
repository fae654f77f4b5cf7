"""Averages that are updated together are those of one update per tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from actionprior.training.averaging import update_together
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("use_buffers", [False, True])  # batch norm has a count among its buffers
def test_they_are_the_same_to_the_last_bit(decay: float, use_buffers: bool) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7))
    single, together = (
        AveragedModel(network, avg_fn=get_ema_avg_fn(decay), use_buffers=use_buffers)
        for _ in range(2)
    )
    update_together(together, network)
    assert ("update_parameters" in vars(together)) is not use_buffers
    for _ in range(5):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        network(torch.randn(4, 5))
        single.update_parameters(network)
        together.update_parameters(network)
    wanted, found = single.state_dict(), together.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


class _PerTensor(Callback):
    """Average the weights with one update per tensor, beside the run's own average."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = AveragedModel(pl_module, avg_fn=get_ema_avg_fn(self.decay))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.average.update_parameters(pl_module)


def test_training_averages_together_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    average = EMAWeightAveraging(decay=0.9, update_starting_at_step=0, use_buffers=False)
    data, reference = ToyTrajectories(), _PerTensor(0.9)
    stage1 = module(data)
    trainer(tmp_path, 4, callbacks=[reference, average]).fit(stage1, data)
    assert "update_parameters" in vars(average._average_model)
    wanted = reference.average.module.parameters()
    assert all(map(torch.equal, stage1.parameters(), wanted))
