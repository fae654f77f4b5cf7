"""Stage 2 on recordings, with a frozen trunk and with its cached features."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from actionprior.networks.trunks import CompactTrunk
from actionprior.networks.trunks.base import Trunk
from actionprior.training.settings import FusionSize
from actionprior.vla import VLAModule
from data_modules import FeatureSettings, LeRobotVLA
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm
from tests.helpers.stage1_runs import SMALL
from tests.helpers.stage1_runs import trainer as stage_trainer
from tests.helpers.stage2_runs import Log


class Darken(nn.Module):
    """Image transform that draws a brightness."""

    def __init__(self, least: float = 0.2) -> None:
        super().__init__()
        self.least = least

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        factor = self.least + (1 - self.least) * float(torch.rand(()))
        return (images * factor).to(torch.uint8)


def frozen_trunk(seed: int = 0, **options: Any) -> CompactTrunk:
    torch.manual_seed(seed)
    return CompactTrunk("test_efficientnet", image_size=32, width=32, keypoints=4, **options)


def data_module(root: Path, folder: Path, features: FeatureSettings, **options: Any) -> LeRobotVLA:
    """Return two robots with two cameras and one camera."""
    robots = [arm(root, name="two", cameras=CAMERAS), arm(root, name="one", cameras=CAMERAS[1:])]
    images = ImageSettings(
        image_size=(32, 48),
        cache_dir=str(folder / "cache"),
        video_backend="pyav",
        features=features,
        cache_images=options.pop("cache_images", True),
    )
    given = {"chunk_length": SMALL.chunk_length, "history_length": SMALL.history_length}
    return LeRobotVLA(robots, batch_size=4, images=images, **given, **options)


def policy(data: LeRobotVLA, trunk: Trunk | None = None, seed: int = 1) -> VLAModule:
    trunk = trunk or frozen_trunk()
    torch.manual_seed(seed)
    return VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        trunk,
        architecture=SMALL,
        fusion=FusionSize(32, 1, 2),
    )


def fit(
    root: Path,
    folder: Path,
    features: FeatureSettings,
    *callbacks: Callback,
    steps: int = 12,
    ckpt: Path | None = None,
    trunk: Trunk | None = None,
    options: dict[str, Any] | None = None,
    **data_options: Any,
) -> Log:
    """Train, and return what was logged."""
    data, log = data_module(root, folder, features, **data_options), Log()
    module = policy(data, trunk)
    given = {"limit_val_batches": 2, "num_sanity_val_steps": 1, **(options or {})}
    runner = stage_trainer(folder, steps, callbacks=[log, *callbacks], **given)
    runner.fit(module, data, ckpt_path=ckpt)
    return log
