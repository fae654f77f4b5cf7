"""Test that a resumed run says which of its settings differ from the checkpoint's."""

import warnings
from pathlib import Path

import pytest

from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


def said(folder: Path, data: ToyTrajectories, resume: bool = True, **options: object) -> list[str]:
    """Train to step 4 or, resumed, to step 6; return what the run said about the checkpoint."""
    runner = trainer(folder, 6 if resume else 4, limit_val_batches=0, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = folder / "four.ckpt" if resume else None
        runner.fit(module(data), data, ckpt_path=start, weights_only=True)
    if not resume:
        runner.save_checkpoint(folder / "four.ckpt")
    return [str(w.message) for w in caught if "four.ckpt: " in str(w.message)]


def test_what_differs_is_said_in_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    assert said(tmp_path, ToyTrajectories(episodes=6, batch_size=16), resume=False) == []
    lines = said(tmp_path, ToyTrajectories(episodes=6, batch_size=16))
    assert [line for line in lines if "steps in the recipe" not in line] == []
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    other = ToyTrajectories(episodes=9, batch_size=8, seed=1)
    lines = said(tmp_path, other, precision="bf16-mixed", accumulate_grad_batches=2)
    for name, mine, saved in (
        ("trainer.precision", "bf16-mixed", "32-true"),
        ("trainer.accumulate_grad_batches", 2, 1),
        ("seed_everything", 4, 3),
        ("data.batch_size", 8, 16),
        ("data.seed", 1, 0),
        ("number of training windows", 300, 200),
        ("number of held-out windows", 60, 40),
    ):
        start = f"{name} is {mine} in the recipe and was {saved} in the checkpoint; the recipe's"
        assert len([line for line in lines if start in line]) == 1, (name, lines)
