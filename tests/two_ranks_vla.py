"""Run by ``test_vla.py``: Stage 2 on two ranks across the step where λ reaches zero."""

import json
import sys
from pathlib import Path

import torch
from lightning import Trainer

from actionprior.vla import VLAModule
from tests.synthetic import BrightnessTrunk, ToyVLA
from tests.test_vla import Log


def main(prior: str, history: str, folder: Path) -> None:
    torch.manual_seed(1)
    data, log = ToyVLA(batch_size=16), Log()
    robots = [e.to_dict() for e in data.embodiments]
    policy = VLAModule(
        robots, BrightnessTrunk(), prior, history=history, decay_fraction=0.5, width=32, heads=2
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",  # not find_unused_parameters
        max_steps=6,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[log],
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(policy, data)
    total = float(sum(p.detach().double().abs().sum() for p in policy.parameters()))
    told = {"lambda": [row["train/lambda"] for row in log.rows], "weights": total}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
