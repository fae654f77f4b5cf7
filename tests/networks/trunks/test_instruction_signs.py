"""What a trunk reads of instructions: cut ones, and two that it takes for one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from actionprior.networks.trunks import CompactTrunk, SmallTrunk
from actionprior.networks.trunks.base import Trunk
from actionprior.networks.trunks.instruction_signs import reading_faults
from actionprior.networks.trunks.word_encoder import word_signs
from actionprior.vla import VLAModule
from tests.helpers.stage1_runs import SMALL, trainer
from tests.helpers.synthetic import ToyVLA
from tests.helpers.word_tables import write_word_table

LONG = " then ".join(f"take item {i} and put it away" for i in range(6)) + " and press the "


def faults(trunk: Trunk, *tasks: str) -> list[str]:
    return reading_faults(tasks, trunk.instruction_signs(list(tasks)), "T")


def small() -> Trunk:
    return SmallTrunk(image_size=16, grid=1, channels=8, text_width=8, width=48)


def compact(folder: Path | None = None) -> Trunk:
    table = str(write_word_table(folder)) if folder else ""
    return CompactTrunk(
        "test_efficientnet", image_size=32, width=32, keypoints=4, text_pretrained=table
    )


@pytest.mark.parametrize("kind", ["small", "compact", "compact with a table"])
def test_cut_instructions_are_named(kind: str, tmp_path: Path) -> None:
    trunk = small() if kind == "small" else compact(tmp_path if "table" in kind else None)
    found = faults(trunk, LONG + "red button", LONG + "green button", "lift the cube")
    assert found[0].startswith("T reads only the beginning of 2 of 3 instructions, such as 'take")
    assert "T reads 2 instructions as 1: it takes '…" in found[1]
    assert "red button' for '…" in found[1]
    assert faults(trunk, "lift the cube", "open the drawer", "把红色方块放到盘子里") == []


def test_words_that_share_a_bucket_are_one_sign() -> None:
    found = faults(small(), "move the bowl", "shirt the socket", "Move the  bowl")
    assert len(found) == 1
    assert "takes 'move the bowl' for 'shirt the socket'" in found[0]
    assert faults(small(), "Move the bowl", "move the  BOWL") == []
    assert word_signs(["lift it"])[0].whole


def test_equal_signs_are_equal_features() -> None:
    trunk = small()
    one, other, third = trunk.read(["move the bowl", "shirt the socket", "lift the cube"])[0]
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_training_warns(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    data = ToyVLA()
    data.instructions = ["move the bowl", "shirt the socket", LONG]
    robots: list[dict[str, Any]] = [e.to_dict() for e in data.embodiments]
    module = VLAModule(robots, small(), architecture=SMALL, use_prior=False)
    trainer(tmp_path, 1, limit_val_batches=0).fit(module, data)
    said = [str(w.message) for w in recwarn]
    assert any("SmallTrunk reads only the beginning of 1 of 3" in text for text in said)
    assert any("SmallTrunk reads 2 instructions as 1" in text for text in said)
