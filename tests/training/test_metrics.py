"""Errors and smoothness are measured inside the episode, and every logged tag is explained."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ThroughputMonitor
from lightning.pytorch.loggers import Logger

from actionprior.batch import batch_size
from actionprior.rollout import EpisodeResult, RolloutResult
from actionprior.training.metrics import (
    BASELINES,
    COPY_LAST,
    UNTRAINED,
    ChunkBend,
    HeldOutErrors,
    copied_first_action,
)
from actionprior.training.settings import FusionSize
from actionprior.vla import VLAModule
from tests.helpers.robots import plain_arm, position_arm, windows
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import BrightnessTrunk, ToyTrajectories, ToyVLA

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def test_errors_stand_beside_those_of_the_baselines() -> None:
    robot = plain_arm()
    window = windows([robot], 4, 6)
    normalizer = module(ToyTrajectories()).prior.normalizer.__class__([robot], chunk_length=6)
    normalizer.fit(window)
    target, copied = normalizer.relative_action(window), copied_first_action(window, normalizer)
    assert torch.equal(copied[:-1, 3], target[:-1, 0])
    errors = HeldOutErrors([robot], BASELINES)
    errors.update(target + 0.5, {COPY_LAST: copied, UNTRAINED: target + 2.0}, window, normalizer)
    found = errors.compute(normalizer.action_range_EA)
    assert float(found["plain/mae_arm_rad"]) == pytest.approx(0.5)
    assert float(found["plain/untrained_mae_arm_rad"]) == pytest.approx(2.0)
    assert float(found["plain/error_over_untrained"]) == pytest.approx(0.25)
    inside = normalizer.action_mask(window)
    expected = (copied - target).abs()[inside].mean()
    assert float(found["plain/copy_last_mae_arm_rad"]) == pytest.approx(float(expected), rel=1e-4)
    errors.reset()
    assert errors.compute(normalizer.action_range_EA) == {}


class Tags(Logger):
    """Logger that keeps the tags."""

    name, version = "tags", "0"

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.tags |= set(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def policy(prior: Path, data: ToyVLA) -> VLAModule:
    return VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        BrightnessTrunk(),
        str(prior),
        fusion=FusionSize(32, heads=2, keyframe_weight=1.0),
        decay_fraction=1.0,
    )


@pytest.mark.slow
def test_every_logged_tag_is_explained(tmp_path: Path) -> None:
    tags = Tags()
    options: dict[str, Any] = {"logger": tags, "check_val_every_n_epoch": None}
    prior = tmp_path / "prior.ckpt"
    for data in (ToyTrajectories(), ToyVLA()):
        speed = ThroughputMonitor(batch_size, window_size=2)
        runner = trainer(tmp_path, 4, val_check_interval=2, callbacks=[speed], **options)
        runner.fit(policy(prior, data) if isinstance(data, ToyVLA) else module(data), data)
        runner.save_checkpoint(prior)
    frames = np.zeros((1, 1), dtype=np.float32)
    episode = EpisodeResult(0, "", True, 1.0, 1, 0.0, 0.0, [0.1], frames)
    episode.guard_counts = {"state": 1, "limit": 0, "step": 0}
    result = RolloutResult("lab/Push-v0", [episode])
    tags.tags |= {f"rollout/{result.env_id}/{key}" for key in result.metrics()}
    patterns = [
        re.compile(re.sub(r"<\w+>", ".+", re.escape(tag).replace(r"\<", "<").replace(r"\>", ">")))
        for tag in re.findall(r"`([\w/<>]+)`", PAGE.read_text("utf-8"))
    ]
    # The gripper of one arm has no unit.
    known = [tag.replace("_gripper", "_gripper_1") for tag in tags.tags]
    unknown = [tag for tag in known if not any(p.fullmatch(tag) for p in patterns)]
    assert not unknown
    assert {"train/loss_keyframe", "val/retrieval", "train/device/samples_per_sec"} <= tags.tags


def test_bends_are_second_differences_inside_the_episode() -> None:
    robot = position_arm()
    metric = ChunkBend([robot])
    steps = torch.arange(6.0)[None, :, None]
    straight, curved = (3 * steps).expand(1, 6, 37), (steps**2).expand(1, 6, 37)
    mask = torch.ones(1, 6, 37, dtype=torch.bool)
    mask[:, 4:] = False
    jump = curved.clone()
    jump[:, 4:] = 99.0  # past the episode's end
    metric.update(jump, straight, mask, torch.zeros(1, dtype=torch.int64))
    found = metric.compute()
    assert {key.split("/")[0] for key in found} == {robot.name}
    assert {float(v) for k, v in found.items() if "/bend_predicted_" in k} == {2.0}
    assert {float(v) for k, v in found.items() if "/bend_recorded_" in k} == {0.0}
    assert len(found) == 2 * len(robot.action)
    metric.reset()
    assert metric.compute() == {}
