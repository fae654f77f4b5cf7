"""Modules are loaded without unpickling and without hyper-parameters, whatever the environment."""

from pathlib import Path

import pytest
import torch

from actionprior.checkpoints.reading import CheckpointError
from actionprior.errors import UserError
from actionprior.motion_prior import MotionPriorModule
from actionprior.vla import VLAModule
from tests.helpers.policies import tiny_network, write_checkpoint
from tests.helpers.stage1_runs import StopAt, module, trainer
from tests.helpers.synthetic import ToyTrajectories

MODULES = [VLAModule, MotionPriorModule]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_checkpoint(tiny_network(), tmp_path / "policy.ckpt")


def test_both_stages_load_what_was_saved(policy: Path) -> None:
    network = tiny_network()
    for loaded in (VLAModule.load_from_checkpoint(policy), VLAModule.load(policy)):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(loaded.network.state_dict()[name], value)
        assert not loaded.training
    prior = MotionPriorModule.load_from_checkpoint(policy).prior
    for name, value in network.prior.state_dict().items():
        torch.testing.assert_close(prior.state_dict()[name], value)


def test_a_prior_of_a_run_is_loaded(tmp_path: Path) -> None:
    data, saved = ToyTrajectories(episodes=6, batch_size=16), tmp_path / "prior.ckpt"
    trained = module(data)
    trainer(tmp_path, 2, limit_val_batches=0, callbacks=[StopAt(2, saved)]).fit(trained, data)
    loaded = MotionPriorModule.load_from_checkpoint(saved)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)


@pytest.mark.parametrize("kind", MODULES)
def test_nothing_is_unpickled_whatever_the_environment_says(
    kind: type, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "proof"), "w")

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    checkpoint = torch.load(policy, weights_only=True)
    torch.save(checkpoint | {"hyper_parameters": {"learning_rate": Payload()}}, policy)
    with pytest.raises(CheckpointError, match="holds more than tensors and plain data"):
        kind.load_from_checkpoint(policy)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("kind", MODULES)
def test_hyper_parameters_of_a_file_are_not_used(kind: type, policy: Path) -> None:
    checkpoint = torch.load(policy, weights_only=True)
    named = {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": "x.Y"}
    torch.save(checkpoint | {"hyper_parameters": named | {"learning_rate": 9.0}}, policy)
    assert kind.load_from_checkpoint(policy).learning_rate == 1e-3


@pytest.mark.parametrize("kind", MODULES)
def test_arguments_that_it_does_not_take_are_refused(kind: type, policy: Path) -> None:
    with pytest.raises(UserError, match="does not take 'weights_only'"):
        kind.load_from_checkpoint(policy, weights_only=False)


def test_bombs_are_refused_by_the_module_too(policy: Path) -> None:
    checkpoint = torch.load(policy, weights_only=True)
    checkpoint["vla"]["settings"]["depth"] = 4000
    torch.save(checkpoint, policy)
    with pytest.raises(CheckpointError, match="needs more weights than"):
        VLAModule.load(policy)
