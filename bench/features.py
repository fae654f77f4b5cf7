"""Measure training steps of Stage 2 with cached features of frozen trunks, as ratios in one run."""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from actionprior import VLAModule
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.trunks import CompactTrunk, OpenClipTrunk, SmallTrunk, TimmTrunk
from actionprior.networks.trunks.base import Trunk, TrunkTokens
from actionprior.networks.trunks.two_towers import Pixels
from actionprior.training.settings import FusionSize, PolicyFlowSettings
from bench.command_line import run
from bench.timing import median_seconds
from data_modules import FeatureSettings, ImageSettings, LeRobotEmbodiment, LeRobotVLA

PIXELS = 224  # edge of the recorded images


@dataclass(frozen=True)
class TrunkCase:
    """A trunk, the size of its images, and how long its steps are timed."""

    trunk: Callable[[], Trunk]
    pixels: int
    slow_batch: int  # observations per batch without the cache
    slow_steps: int  # timed steps without the cache


def _cases() -> dict[str, TrunkCase]:
    dinov2 = "vit_small_patch14_dinov2"
    return {
        "compact": TrunkCase(lambda: CompactTrunk(), 128, 48, 6),
        "siglip_size": TrunkCase(lambda: OpenClipTrunk("ViT-B-16"), PIXELS, 8, 3),
        "dinov2_size": TrunkCase(lambda: TimmTrunk(dinov2, pixels=Pixels(PIXELS)), PIXELS, 8, 3),
    }


class FixedTokens(Trunk):
    """Trunk that computes nothing: as many tokens as ``CompactTrunk`` has, without their cost."""

    def __init__(self, tokens: int = 40, width: int = 128) -> None:
        super().__init__()
        self.width, self.lr_scale = width, 1.0
        self.tokens_NW = nn.Parameter(torch.randn(tokens, width))

    def forward(self, images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> TrunkTokens:
        """Return the same tokens for every row."""
        tokens_BNW = self.tokens_NW.expand(len(task), -1, -1)
        return TrunkTokens(tokens_BNW, camera_mask_BC.new_ones(tokens_BNW.shape[:2]))

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`."""
        return {"tokens": len(self.tokens_NW), "width": self.width}


class StepTimes(Callback):
    """Record the process's seconds of computing at the end of each training step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Read the clock."""
        self.ends.append(time.process_time())


def bench_features(
    batch_size: int = 48, steps: int = 20, episodes: int = 2, folder: str = "outputs"
) -> None:
    """Time whole training steps of Stage 2 from images and from cached features, on one core.

    A step reads the batch, runs `VLAModule.training_step`, the backward pass, clipping and AdamW
    under Lightning, with a fusion of width 96 and four noise draws. All weights are random, and the
    losses of the prior count in every step. Time is the process's own, so that other work on the
    machine does not count. Slow networks get small batches without the cache, because their time
    per image hardly depends on the batch.

    The last line is `RESULT` and JSON, with observations per second: `images` without the cache,
    `features` from it, and `reading` for the loader without training. `compact_frozen` is the
    compact trunk's image network: images per second, and its speed as a multiple of that of the
    same network where it could train. `small_64` is `SmallTrunk`
    at 64 pixels, which trains from images. `free_trunk` has tokens without computing them, and no
    cache is faster.

    Args:
        batch_size: Observations per step.
        steps: Timed steps with cached features, of which the median is reported.
        episodes: Recorded episodes; the frozen networks see each of their images once.
        folder: Folder for temporary data.
    """
    torch.set_num_threads(1)
    Path(folder).mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-features-", dir=folder))
    try:
        root = _record(work, episodes)
        result: dict[str, Any] = {}
        small = TrunkCase(lambda: SmallTrunk(grid=4), 64, batch_size, steps)
        result["small_64"] = round(_speed(work, root, small, False, batch_size, steps), 1)
        free = TrunkCase(FixedTokens, 64, batch_size, steps)
        result["free_trunk"] = round(_speed(work, root, free, False, batch_size, steps), 1)
        for name, case in _cases().items():
            images = _speed(work, root, case, False, case.slow_batch, case.slow_steps)
            features = _speed(work, root, case, True, batch_size, steps)
            result[name] = {"images": round(images, 1), "features": round(features, 1)}
            result[name]["ratio"] = round(features / images, 1)
            result[name]["reading"] = round(_reading(work, root, case, batch_size))
            print(f"{name:<12} {result[name]}", flush=True)
        compact, small_64 = result["compact"]["features"], result["small_64"]
        result["compact_vs_small_64"] = round(compact / small_64, 2)
        result["compact_frozen"] = _frozen(batch_size)
        result["met"] = {
            "compact_5_times": result["compact"]["ratio"] >= 5,
            "siglip_size_20_times": result["siglip_size"]["ratio"] >= 20,
            "compact_4_times_small_64": result["compact_vs_small_64"] >= 4,
        }
        result["free_trunk_vs"] = {
            "small_64": round(result["free_trunk"] / small_64, 2),
            "compact": round(result["free_trunk"] / result["compact"]["images"], 2),
        }
    finally:
        shutil.rmtree(work)
    print("RESULT " + json.dumps(result), flush=True)


def _frozen(batch_size: int) -> dict[str, float]:
    """Compare the compact trunk's image network where it is frozen and where it could train."""
    images = torch.randint(0, 256, (batch_size, 3, 128, 128), dtype=torch.uint8)
    frozen, free = CompactTrunk(freeze=True).image, CompactTrunk(freeze=False).image
    with torch.inference_mode():
        fast, slow = median_seconds(15, lambda: frozen(images), lambda: free(images))
    return {"images_per_s": round(len(images) / fast, 1), "ratio": round(slow / fast, 2)}


def _record(work: Path, episodes: int) -> Path:
    from actionprior.envs.recording import record_demonstrations

    root = work / "data"
    record_demonstrations(
        "actionprior/PandaReach-v0", root, episodes_per_task=episodes, image_size=PIXELS
    )
    return root


def _data(work: Path, root: Path, case: TrunkCase, cache: bool, batch_size: int) -> LeRobotVLA:
    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.envs.recording import CAMERA_KEY

    robot = LeRobotEmbodiment(**vars(suite_embodiment("panda")), roots=[str(root)])
    robot.cameras = [CAMERA_KEY]
    images = ImageSettings(
        image_size=case.pixels,
        cache_dir=str(work / "cache"),
        features=FeatureSettings(cache=cache),
    )
    return LeRobotVLA([robot], batch_size=batch_size, images=images, val_fraction=0.0)


def _module(data: LeRobotVLA, case: TrunkCase) -> VLAModule:
    torch.manual_seed(0)
    return VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        case.trunk(),
        architecture=PriorArchitecture(width=96, latent_width=64, decoder_sees_state=True),
        decay_fraction=1.0,
        fusion=FusionSize(width=96),
        flow=PolicyFlowSettings(noise_repeats=4, latent_noise=0.05),
    )


def _speed(
    work: Path, root: Path, case: TrunkCase, cache: bool, batch_size: int, steps: int
) -> float:
    """Return the observations per second of training, by the median step."""
    data, times = _data(work, root, case, cache, batch_size), StepTimes()
    _trainer(work, steps + 2, times).fit(_module(data, case), data)
    taken = [b - a for a, b in zip(times.ends[1:], times.ends[2:], strict=False)]
    return batch_size / statistics.median(taken)


def _reading(work: Path, root: Path, case: TrunkCase, batch_size: int) -> float:
    """Return the observations per second of the loader on its own, with cached features."""
    data = _data(work, root, case, True, batch_size)
    _trainer(work, 1).fit(_module(data, case), data)
    speeds = []
    for _ in range(20):
        start = time.process_time()
        read = sum(len(batch.observation.task) for batch in data.train_dataloader())
        speeds.append(read / (time.process_time() - start))
    return statistics.median(speeds)


def _trainer(work: Path, steps: int, *callbacks: Callback) -> Trainer:
    return Trainer(
        default_root_dir=work,
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_features` for its options."""
    run(bench_features, "features", args)


if __name__ == "__main__":
    main()
