"""Run Stage 2 on several ranks, across the step at which λ reaches zero."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from lightning import Trainer
from torch import Tensor

from actionprior.flow_matching import TimeLaw
from actionprior.networks.trunks.base import Trunk
from actionprior.training.flow_noise import FlowNoise
from actionprior.training.settings import FusionSize
from actionprior.training.sharding import ShardedStrategy, full_tensor
from actionprior.vla import VLAModule
from tests.helpers.stage2_runs import Log
from tests.helpers.synthetic import BrightnessTrunk, ToyVLA

GLOBAL_BATCH = 32


class OneDraw(FlowNoise):
    """Noise that is the same for all windows, so that their order on the ranks has no effect."""

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        return super().normal(1, *shape[1:], like=like).expand(*shape)

    def time(self, count: int, law: TimeLaw, like: Tensor) -> Tensor:
        return super().time(1, law, like).expand(count)


class SameEverywhere(VLAModule):
    """Stage 2 whose loss depends only on the global batch."""

    def noise(self, batch_idx: int) -> FlowNoise:
        return OneDraw(self.global_step)


class Report(Log):
    """Write what this rank logged, and its weights, to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Trainer, module: VLAModule) -> None:
        report = {key: [row[f"train/{key}"] for row in self.rows] for key in ("lambda", "loss")}
        weights = [full_tensor(p.detach()).double().abs().sum() for p in module.parameters()]
        report["weights"] = float(sum(weights))
        report["held out"] = float(trainer.callback_metrics["val/cosine"])
        name = f"rank{trainer.global_rank}of{trainer.world_size}.json"
        (self.folder / name).write_text(json.dumps(report))
        trainer.save_checkpoint(self.folder / f"of{trainer.world_size}.ckpt")


def main(
    prior: str,
    history: str,
    folder: Path,
    ranks: int,
    strategy: str,
    trunk: Callable[[], Trunk] = BrightnessTrunk,
) -> None:
    torch.manual_seed(1)
    data = ToyVLA(batch_size=GLOBAL_BATCH // ranks)  # some windows end outside their episode
    robots = [e.to_dict() for e in data.embodiments]
    policy = SameEverywhere(
        robots,
        trunk(),
        prior,
        history=history,
        decay_fraction=0.5,
        fusion=FusionSize(32, heads=2),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ShardedStrategy() if strategy == "sharded" else strategy,
        gradient_clip_val=1.0,
        max_steps=6,
        limit_val_batches=2,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[Report(folder)],
        logger=False,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(policy, data)


if __name__ == "__main__":
    prior, history, folder, strategy = sys.argv[1:5]
    # One process comes last: computing its gradients starts threads, after which no fork is safe.
    for count in map(int, sys.argv[5:]):
        # The strategies run without find_unused_parameters, although λ = 0 leaves some unused.
        main(prior, history, Path(folder), count, strategy if count > 1 else "auto")
