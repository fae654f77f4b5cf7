"""Bad steps are skipped, counted and reported with their content; many of them end the run."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from actionprior.errors import UserError
from actionprior.motion_prior import MotionPriorModule
from tests.helpers.stage1_runs import Spoil, StopAt, module, trainer
from tests.helpers.synthetic import ToyTrajectories

GUARDS = {"skip_bad_steps", "spike_factor"}


def fit(folder: Path, spoil: Spoil, steps: int = 6, **options: object) -> list[str]:
    """Train; return the warnings about skipped steps."""
    data = ToyTrajectories(episodes=6, batch_size=16)
    settings = {key: options.pop(key) for key in GUARDS & set(options)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(folder, steps, limit_val_batches=0, callbacks=[spoil], **options).fit(
            module(data, **settings), data
        )
    return [str(w.message) for w in caught if "skipped" in str(w.message)]


@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed", "gradient_clip_val": 1.0}])
def test_a_step_with_nan_changes_nothing_and_is_reported(
    tmp_path: Path, options: dict[str, object]
) -> None:
    spoil = Spoil({2, 3})
    first, second = fit(tmp_path, spoil, **options)
    assert torch.equal(spoil.weights[1], spoil.weights[2])
    assert torch.equal(spoil.weights[1], spoil.weights[3])
    assert not torch.equal(spoil.weights[3], spoil.weights[4])
    assert [row["train/skipped_steps"] for row in spoil.rows] == [0, 0, 1, 2, 2, 2]
    assert "step 2 of epoch 0: training loss nan on rank 0, batch 2 (panda " in first
    assert "step 3 of epoch 0" in second


def test_the_report_lists_what_the_batch_held(tmp_path: Path) -> None:
    spoil, data = Spoil({14}), ToyTrajectories(episodes=6, batch_size=16)
    saved = tmp_path / "stopped.ckpt"
    stop = trainer(tmp_path, 20, limit_val_batches=0, callbacks=[StopAt(13, saved)])
    stop.fit(module(data), data)
    data = ToyTrajectories(episodes=6, batch_size=8)  # another batch size, in the second epoch
    runner = trainer(tmp_path, 20, limit_val_batches=0, callbacks=[spoil])
    with pytest.warns(UserWarning, match="step 14 of epoch 1: .* batch 3 ") as caught:
        runner.fit(module(data), data, ckpt_path=saved, weights_only=True)
    [message] = [str(w.message) for w in caught if "skipped" in str(w.message)]
    store, batch = data.frames.store, spoil.batches[1]
    everything = store.future(torch.arange(len(store)), 15)
    for index, robot in enumerate(["panda", "kuka"]):
        rows = batch.state_BHS[batch.embodiment_B == index].flatten(1)
        mine = everything.state_BHS.flatten(1)
        frames = [int((mine == row).all(1).nonzero()[0]) for row in rows]
        episodes = np.unique(np.array(frames) // 20 - 6 * index).tolist()
        listed = ", ".join(map(str, episodes))
        assert f"{robot} recording {index}: episodes {listed}" in message


@pytest.mark.parametrize(("bound", "last"), [(0, 2), (2, 4)])
def test_too_many_in_a_row_end_the_run(tmp_path: Path, bound: int, last: int) -> None:
    spoil = Spoil({2, 3, 4, 5})
    expected = rf"step {last} of epoch 0: .*episodes.*; {bound + 1} bad steps in a row"
    with pytest.raises(UserError, match=expected):
        fit(tmp_path, spoil, skip_bad_steps=bound)
    assert len(spoil.rows) == last


def test_an_accumulated_step_is_dropped_whole(tmp_path: Path) -> None:
    spoil = Spoil({1})
    [said] = fit(tmp_path, spoil, steps=3, accumulate_grad_batches=2)
    assert "batch 2 (" in said
    assert "batch 3 (" in said
    assert torch.equal(spoil.weights[1], spoil.weights[3])
    assert not torch.equal(spoil.weights[3], spoil.weights[5])


def test_spikes_are_dropped_where_asked_for_and_counted_over_a_resume(tmp_path: Path) -> None:
    spoil = Spoil({25, 27}, factor=1e3)
    assert fit(tmp_path, spoil, steps=30) == []
    spoil, saved = Spoil({25, 27}, factor=1e3), tmp_path / "stopped.ckpt"
    data = ToyTrajectories(episodes=6, batch_size=16)
    settings = {"limit_val_batches": 0}
    runner = trainer(tmp_path, 30, callbacks=[spoil, StopAt(26, saved)], **settings)
    with pytest.warns(UserWarning, match="step 25 .* training loss"):
        runner.fit(module(data, spike_factor=10.0), data)
    assert spoil.rows[-1]["train/skipped_steps"] == 1
    again = module(data, spike_factor=10.0)
    runner = trainer(tmp_path, 30, callbacks=[spoil], **settings)
    with pytest.warns(UserWarning, match="step 27 .* training loss"):
        runner.fit(again, data, ckpt_path=saved, weights_only=True)
    assert spoil.rows[-1]["train/skipped_steps"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"skip_bad_steps": -1}, "skip_bad_steps is -1"), ({"spike_factor": 0.5}, "spike_factor is")],
)
def test_impossible_bounds_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(ToyTrajectories(), **settings)


@pytest.mark.slow
def test_all_ranks_drop_the_step_that_is_bad_on_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.two_ranks", "nan", str(tmp_path)]
    run = subprocess.run(
        command, check=True, timeout=200, cwd=Path(__file__).parents[2], text=True, stderr=-1
    )
    written = [(tmp_path / f"rank{rank}").read_text() for rank in range(2)]
    assert written[0] == written[1]
    assert written[0].startswith("1.0 True ")  # skipped steps; whether the step changed nothing
    assert "step 2 of epoch 0: training loss nan on rank 1, batch 2 (" in run.stderr


@pytest.mark.parametrize("algorithm", [None, "norm", "value"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped(tmp_path: Path, algorithm: str | None, precision: str) -> None:
    class Clipped(Callback):
        def on_before_zero_grad(
            self, trainer: Trainer, module: MotionPriorModule, *_: object
        ) -> None:
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            if gradients:
                self.norm = float(torch.nn.utils.get_total_norm(gradients))
                self.largest = max(float(g.abs().max()) for g in gradients)

    clipped, data = Clipped(), ToyTrajectories(episodes=6, batch_size=16)
    runner = trainer(
        tmp_path,
        2,
        limit_val_batches=0,
        callbacks=[clipped],
        gradient_clip_val=1e-3,
        gradient_clip_algorithm=algorithm,
        precision=precision,
    )
    runner.fit(module(data), data)
    if algorithm == "value":
        assert clipped.largest == pytest.approx(1e-3, rel=1e-3)
    else:
        assert clipped.norm == pytest.approx(1e-3, rel=1e-3)
    assert runner.callback_metrics["train/grad_norm"] > 1e-2
