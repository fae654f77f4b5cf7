"""Run by ``test_vla.py``: Stage 2 on some ranks across the step where λ reaches zero."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor

from actionprior.data import Frames
from actionprior.flow_matching import TimeLaw
from actionprior.spans import Spans
from actionprior.training import FlowNoise
from actionprior.vla import VLAModule
from tests.synthetic import BrightnessTrunk, ToyVLA
from tests.test_vla import Log

GLOBAL_BATCH = 32


class OneDraw(FlowNoise):
    """One draw for all windows, so that it does not matter which rank has which."""

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        return super().normal(1, *shape[1:], like=like).expand(*shape)

    def time(self, count: int, law: TimeLaw, like: Tensor) -> Tensor:
        return super().time(1, law, like).expand(count)


class SameEverywhere(VLAModule):
    """A Stage 2 whose loss depends on the global batch alone."""

    def noise(self, batch_idx: int) -> FlowNoise:
        return OneDraw(self.global_step)


class Tell(Log):
    """Writes down what this rank logged, and its weights."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Trainer, module: VLAModule) -> None:
        told = {key: [row[f"train/{key}"] for row in self.rows] for key in ("lambda", "loss")}
        told["weights"] = float(sum(p.detach().double().abs().sum() for p in module.parameters()))
        name = f"rank{trainer.global_rank}of{trainer.world_size}.json"
        (self.folder / name).write_text(json.dumps(told))


class WholeChunks(ToyVLA):
    """One robot's windows that end inside their episode.

    A loss is a mean over what is not masked: with as much of it on each rank, the mean of the
    ranks' losses is the global batch's.
    """

    def read_frames(self) -> Frames:
        frames = super().read_frames()
        whole = np.arange(len(frames.store)) % 20 <= 20 - self.chunk_length
        train = np.zeros(len(whole), dtype=bool)
        train[frames.train.frames()] = True
        return frames._replace(train=Spans.where(train & whole))


def main(prior: str, history: str, folder: Path, ranks: int) -> None:
    torch.manual_seed(1)
    data = WholeChunks(robots="position", batch_size=GLOBAL_BATCH // ranks)
    robots = [e.to_dict() for e in data.embodiments]
    policy = SameEverywhere(
        robots, BrightnessTrunk(), prior, history=history, decay_fraction=0.5, width=32, heads=2
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",  # not find_unused_parameters
        max_steps=6,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[Tell(folder)],
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(policy, data)


if __name__ == "__main__":
    for count in map(int, sys.argv[4:]):  # one process last: its gradients start threads
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), count)
