"""Test other wordings of instructions: in training only, the same ones in a resumed run."""

import contextlib
from collections import Counter
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from actionprior.batch import VLABatch
from actionprior.data import DataError
from data_modules import LeRobotVLA
from data_modules.lerobot.wordings import reword
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm
from tests.helpers.stage1_runs import Stop

PUSH, LIFT = "push the cube", "lift the cube"
OTHERS = {PUSH: ["shove the cube", "slide the cube"]}
EQUAL = {text: PUSH for text in OTHERS[PUSH]}


class Listener(lightning.LightningModule):
    """Records the robots and instructions of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[int, str]] = []
        self.validated: list[tuple[int, str]] = []

    def training_step(self, batch: VLABatch, batch_idx: int) -> Tensor:
        self.trained += heard(batch)
        return self.weight

    def validation_step(self, batch: VLABatch, batch_idx: int) -> None:
        self.validated += heard(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def heard(batch: VLABatch) -> list[tuple[int, str]]:
    seen = batch.observation
    return list(zip(seen.embodiment_B.tolist(), seen.task, strict=True))


def module(seen: Path, folder: Path, wordings: dict[str, list[str]]) -> LeRobotVLA:
    robots = [
        arm(seen, name="asked", cameras=CAMERAS[1:], other_wordings=wordings),
        arm(seen, name="other", cameras=CAMERAS[1:]),
    ]
    return LeRobotVLA(robots, batch_size=4, images=ImageSettings(cache_dir=str(folder)))


def fit(
    seen: Path, folder: Path, *callbacks: Callback, wordings: dict[str, list[str]] = OTHERS
) -> Listener:
    listener = Listener()
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_epochs=4,
        callbacks=list(callbacks),
    )
    ckpt = None if callbacks else next(iter(folder.glob("stopped.ckpt")), None)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(
            listener,
            module(seen, folder, wordings),
            ckpt_path=ckpt,
            weights_only=True if ckpt else None,
        )
    return listener


def test_training_hears_all_wordings_and_validation_the_datas_own(
    seen: Path, tmp_path: Path
) -> None:
    plain, changed = fit(seen, tmp_path, wordings={}), fit(seen, tmp_path)
    assert changed.validated == plain.validated
    assert [(robot, EQUAL.get(text, text)) for robot, text in changed.trained] == plain.trained
    assert {text for robot, text in changed.trained if robot == 0} == {PUSH, LIFT, *EQUAL}
    assert {text for robot, text in changed.trained if robot == 1} == {PUSH, LIFT}


def test_a_resumed_run_hears_the_same(seen: Path, tmp_path: Path) -> None:
    whole = fit(seen, tmp_path).trained
    stopped = fit(seen, tmp_path, Stop(5)).trained
    resumed = fit(seen, tmp_path).trained
    assert 0 < len(stopped) < len(whole)
    assert stopped + resumed == whole


def test_every_wording_is_equally_likely() -> None:
    count = Counter(reword([PUSH] * 3000, [OTHERS] * 3000, (1, 2)))
    assert set(count) == {PUSH, *OTHERS[PUSH]}
    assert min(count.values()) > 900


def test_all_wordings_count_as_instructions(seen: Path, tmp_path: Path) -> None:
    data = module(seen, tmp_path, OTHERS)
    data.setup("fit")
    assert set(data.instructions) == {PUSH, LIFT, *EQUAL}


@pytest.mark.parametrize(
    ("wordings", "message"),
    [
        ({"pusch the cube": ["x"]}, r"'asked'.*'pusch the cube'.*nearest is 'push the cube'"),
        ({PUSH: ["shove it", " "]}, r"other_wordings of 'push the cube' has ' '"),
    ],
)
def test_wrong_wordings_are_refused(
    wordings: dict[str, list[str]], message: str, seen: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        module(seen, tmp_path, wordings).setup("fit")
