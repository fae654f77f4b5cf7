"""Fit and test on two ranks; rank zero writes the results (``tests/callbacks/test_rollout.py``)."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger

from tests.helpers.point_module import PointModule, evaluation


def main(folder: Path) -> None:
    callback = evaluation(every_n_steps=3)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=3,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(PointModule())
    results = [result.to_dict() for result in callback.results]
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
