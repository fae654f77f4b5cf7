"""Run Stage 2 on two ranks, without and with cached features, and report what each rank did."""

import json
import sys
from pathlib import Path

from lightning import LightningModule, Trainer

from actionprior.training.sharding import full_tensor
from data_modules import FeatureSettings
from data_modules.images.features import FrozenFeatures
from tests.helpers.feature_runs import fit
from tests.helpers.stage2_runs import Log


class Report(Log):
    """Write what this rank logged and computed, and its weights, to a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        weights = [full_tensor(p.detach()).double().abs().sum() for p in module.parameters()]
        report = {
            "loss": [row["train/loss"] for row in self.rows],
            "weights": float(sum(weights)),
            "computed": computed,
            "sent": list(trainer.strategy.model.named_module_buffers),
        }
        path = self.path.with_suffix(f".{trainer.global_rank}.json")
        path.write_text(json.dumps(report))


computed: list[str] = []


def main(root: Path, folder: Path) -> None:
    compute = FrozenFeatures.compute

    def counted(self, images, episode, camera, view):
        computed.append(f"{camera} {episode} {view}")
        return compute(self, images, episode, camera, view)

    FrozenFeatures.compute = counted
    for name, features in (
        ("off", FeatureSettings()),
        ("on", FeatureSettings(cache=True, dtype="float32")),
    ):
        report = Report(folder / name)
        ranks = {"devices": 2, "strategy": "ddp_fork", "limit_val_batches": 0}
        fit(root, folder, features, report, steps=3, options=ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
