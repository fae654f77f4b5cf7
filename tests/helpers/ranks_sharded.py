"""Run Stage 1 on two ranks, with shards or one file (``tests/checkpoints/test_sharded.py``)."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from actionprior.checkpoints import sharded
from actionprior.motion_prior import MotionPriorModule
from actionprior.training.sharding import ShardedStrategy
from tests.helpers.stage1_runs import StopAt, module, trainer
from tests.helpers.synthetic import ToyTrajectories


class SaveAt(StopAt):
    """Save in the middle of an epoch and continue."""

    def on_train_batch_end(self, *args: object) -> None:
        super().on_train_batch_end(*args)
        args[0].should_stop = False


def stage1(data: ToyTrajectories) -> MotionPriorModule:
    """Make a module with a parameter of one row, which only one rank holds and no step trains."""
    stage = module(data)
    stage.single = nn.Parameter(torch.ones(1, 3))
    return stage


def train(folder: Path, name: str, sharded: bool, resume: str = "", ranks: int = 2) -> None:
    """Train to step 6 and leave ``<name>3.ckpt`` and ``<name>6.ckpt``."""
    data = ToyTrajectories(episodes=6, batch_size=16 // ranks)
    callbacks = [SaveAt(3, folder / f"{name}3.ckpt")]
    runner = trainer(
        folder,
        6,
        devices=ranks,
        strategy=ShardedStrategy(sharded_checkpoints=sharded),
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=callbacks,
    )
    path = folder / resume if resume else None
    runner.fit(stage1(data), data, ckpt_path=path, weights_only=True)
    runner.save_checkpoint(folder / f"{name}6.ckpt")


def main(folder: Path) -> None:
    train(folder, "shards", True)
    train(folder, "file", False)
    train(folder, "again", True, "shards3.ckpt")
    train(folder, "wide_shards", False, "one_shards3.ckpt")
    train(folder, "wide_file", False, "one_file3.ckpt")
    if int(os.environ["LOCAL_RANK"]) == 1:  # before its shard is flushed
        sharded.sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    train(folder, "killed", True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
