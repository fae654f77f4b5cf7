"""Test what the modules take from a run's data, in scripts as on the command line."""

from pathlib import Path
from typing import Any

import pytest

from actionprior.motion_prior import MotionPriorModule
from actionprior.training.settings import FusionSize
from actionprior.vla import VLAModule
from data_modules import LeRobotTrajectories, LeRobotVLA
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm, write_dataset
from tests.helpers.policies import SMALL
from tests.helpers.stage1_runs import trainer
from tests.helpers.synthetic import BrightnessTrunk

OPTIONS: dict[str, Any] = {
    "chunk_length": SMALL.chunk_length,
    "history_length": SMALL.history_length,
    "batch_size": 4,
    "val_fraction": 0.3,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cameras = dict.fromkeys(CAMERAS, "image")
    return write_dataset(tmp_path_factory.mktemp("data") / "ten", (14,) * 10, cameras=cameras)


def held_out(data: LeRobotTrajectories) -> list[int]:
    record = data.split_record()["arm"]
    return [n for n, share in zip(record["number"], record["trained"], strict=True) if share < 1]


@pytest.fixture
def prior(root: Path, tmp_path: Path) -> Path:
    data = LeRobotTrajectories([arm(root)], **OPTIONS)
    runner = trainer(tmp_path, 1, limit_val_batches=0)
    runner.fit(MotionPriorModule([r.to_dict() for r in data.embodiments], SMALL), data)
    runner.save_checkpoint(tmp_path / "prior.ckpt")
    return tmp_path / "prior.ckpt"


def policy(prior: Path, data: LeRobotVLA) -> VLAModule:
    robots = [robot.to_dict() for robot in data.embodiments]
    return VLAModule(robots, BrightnessTrunk(), str(prior), fusion=FusionSize(32, 1, 2))


def test_a_script_holds_out_what_the_prior_held_out(
    root: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    first = LeRobotTrajectories([arm(root)], **OPTIONS)
    first.setup("fit")
    expected = held_out(first)

    def other() -> LeRobotVLA:  # another seed, so another split
        images = ImageSettings(cache_dir=str(tmp_path / "cache"))
        return LeRobotVLA([arm(root, cameras=CAMERAS)], **OPTIONS, seed=5, images=images)

    fresh = other()
    fresh.prepare_data()
    fresh.setup("fit")
    assert held_out(fresh) != expected
    data = other()
    runner = trainer(tmp_path, 1, limit_val_batches=0)
    runner.fit(policy(prior, data), data)
    assert held_out(data) == expected
    trained = set(data.frames.train.frames().tolist())
    for number in expected:
        assert not trained & set(range(14 * number, 14 * number + 14))

    # A loaded policy is tested on what its run held out; so is a prior that is trained further.
    runner.save_checkpoint(tmp_path / "policy.ckpt")
    data = other()
    loaded = VLAModule.load(tmp_path / "policy.ckpt", BrightnessTrunk)
    trainer(tmp_path, 1).validate(loaded, data, verbose=False)
    assert held_out(data) == expected
    more = LeRobotTrajectories([arm(root)], **OPTIONS, seed=5)
    robots = [robot.to_dict() for robot in more.embodiments]
    module = MotionPriorModule(robots, prior_checkpoint=str(prior))
    trainer(tmp_path, 1, limit_val_batches=0).fit(module, more)
    assert held_out(more) == expected


def test_a_checkpoint_that_the_data_follow_already_counts(root: Path, prior: Path) -> None:
    data = LeRobotTrajectories([arm(root)], **OPTIONS, seed=5)
    data.follow_split({}, "another.ckpt")
    runner = trainer(prior.parent, 1, limit_val_batches=0)
    robots = [robot.to_dict() for robot in data.embodiments]
    runner.fit(MotionPriorModule(robots, prior_checkpoint=str(prior)), data)
    assert data.split_checkpoint == "another.ckpt"
