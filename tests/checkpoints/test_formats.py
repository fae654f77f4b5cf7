"""Checkpoints of older formats are read as if they were new; newer ones are refused."""

from pathlib import Path

import pytest
import torch

from actionprior.checkpoints.formats import FORMAT, KEY, FormatError, migrate
from actionprior.checkpoints.policy import load_network
from actionprior.checkpoints.prior import load_prior
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.training.settings import FusionSize
from actionprior.vla import VLAModule
from tests.helpers.stage1_runs import SMALL, trainer
from tests.helpers.synthetic import BrightnessTrunk, ToyVLA


def old_checkpoint(folder: Path) -> tuple[VLAModule, Path]:
    """A checkpoint as format 1 had it: the networks were the module's own."""
    data = ToyVLA()
    robots = [e.to_dict() for e in data.embodiments]
    module = VLAModule(
        robots, BrightnessTrunk(), architecture=SMALL, fusion=FusionSize(32, heads=2)
    )
    runner = trainer(folder, 1, limit_val_batches=0)
    runner.fit(module, data)
    path = folder / "policy.ckpt"
    runner.save_checkpoint(path)
    checkpoint = read_checkpoint(path)
    del checkpoint[KEY]
    weights = checkpoint["state_dict"].items()
    checkpoint["state_dict"] = {k.removeprefix("network."): v for k, v in weights}
    torch.save(checkpoint, path)
    return module, path


def test_a_policy_of_format_1_is_read_and_resumed(tmp_path: Path) -> None:
    module, path = old_checkpoint(tmp_path)
    expected = module.network.state_dict()
    for network in (
        load_network(path, BrightnessTrunk()),
        VLAModule.load(path, BrightnessTrunk()).network,
    ):
        assert network.state_dict().keys() == expected.keys()
        assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())
    prior = load_prior(path).state_dict()
    assert all(torch.equal(v, prior[k]) for k, v in module.prior.state_dict().items())
    robots = [e.to_dict() for e in module.embodiments]
    again = VLAModule(robots, BrightnessTrunk(), architecture=SMALL, fusion=FusionSize(32, heads=2))
    runner = trainer(tmp_path, 2, limit_val_batches=0)
    runner.fit(again, ToyVLA(), ckpt_path=path, weights_only=True)
    assert runner.global_step == 2


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(FormatError, match=rf"x\.ckpt is of format 99, .* reads up to {FORMAT}"):
        migrate({KEY: 99, "state_dict": {}}, "x.ckpt")


def test_the_newest_is_left_as_it_is() -> None:
    weights = {"prior.w": torch.zeros(1)}
    checkpoint = {KEY: FORMAT, "vla": {}, "state_dict": dict(weights)}
    migrate(checkpoint)
    assert checkpoint["state_dict"].keys() == weights.keys()
