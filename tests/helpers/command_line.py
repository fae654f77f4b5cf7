"""A user's folder with a model and data, and calls of the command line in it."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actionprior import cli

LIGHTNING = Path(sys.executable).with_name("lightning")


MYLAB = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from actionprior.embodiment import ActionGroup, Embodiment


class Data(LightningDataModule):
    def __init__(self, control_hz: float = 10.0):
        super().__init__()
        arm = ActionGroup(name="arm", slot="right_arm", features=["x", "y"])
        self.embodiments = [Embodiment(name="toy", control_hz=control_hz, action=[arm])]

    def loader(self):
        return DataLoader(torch.randn(8, 4), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class NoRobots(LightningDataModule):
    def __init__(self, batch_size: int = 2):
        super().__init__()


class Model(LightningModule):
    def __init__(self, embodiments: list[dict], lr: float = 0.1, broken: bool = False):
        super().__init__()
        if broken:
            raise RuntimeError("a bug")
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        return self.layer(batch).square().mean()

    def forward(self, batch):
        return self.layer(batch)

    def validation_step(self, batch, index):
        self.log("val_loss", self.training_step(batch, index))

    def test_step(self, batch, index):
        self.log("test_loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
"""


RECIPE = """
model: {class_path: mylab.toy.Model}
data: {class_path: mylab.toy.Data}
trainer:
  accelerator: cpu
  max_epochs: 1
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a user's folder the working directory."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "toy.py").write_text(MYLAB)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    # Handlers from earlier tests write to streams that are closed by now.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


def checkpoint_of(folder: Path, version: int = 0) -> Path:
    [path] = folder.glob(f"outputs/lightning_logs/version_{version}/checkpoints/*.ckpt")
    return path


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must exit with code 2, and return its one-line error."""
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors.splitlines()[-1]
