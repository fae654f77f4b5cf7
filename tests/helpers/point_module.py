"""A module that learns step by step to walk like the solver."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from actionprior.batch import Observation
from actionprior.rollout import ObservationMap
from callbacks.rollout import RolloutEvaluation
from tests.helpers.point_env import Solver


class PointModule(pl.LightningModule):
    """Module whose ``gain`` moves from 0 (stand still) to 1 (walk); noise makes steps differ."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.trained = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.policy = Solver()
        self.gains_seen: list[float] = []
        self.modes_seen: set[bool] = set()
        self.losses: list[float] = []

    embodiments = property(lambda self: self.policy.embodiments)
    chunk_length = property(lambda self: self.policy.chunk_length)
    history_length = property(lambda self: self.policy.history_length)

    def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        torch.rand(3)  # the policy's use of the global generator must not affect training
        self.gains_seen.append(self.gain.item())
        self.modes_seen |= {self.training, self.trained.training, self.frozen.training}
        return self.gain.detach() * self.policy.predict_chunk(observation, noise_BHA)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = (self.gain - 1 + 0.01 * torch.randn(())).square()
        self.losses.append(loss.item())
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        assert self.trained.training
        assert not self.frozen.training

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.3)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(16, 1), batch_size=1)  # type: ignore[arg-type]  # a tensor will do

    test_dataloader = train_dataloader


def evaluation(**changes: Any) -> RolloutEvaluation:
    arguments: dict[str, Any] = {
        "env_ids": ["test/Point-v0"],
        "observation_map": ObservationMap(state=""),
        "embodiment": "point",
        "episodes": 5,
        "seed": 50,
        "num_envs": 3,
        "execute_steps": 5,
        "import_modules": ["tests.helpers.point_env"],
    }
    return RolloutEvaluation(**(arguments | changes))
