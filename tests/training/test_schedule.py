"""A resumed run takes rates and decays from its recipe, and says what a changed length does."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from actionprior.training.schedule import Schedule
from actionprior.training.settings import OptimizerSettings
from tests.helpers.stage1_runs import Spoil, StopAt, module, trainer
from tests.helpers.synthetic import ToyTrajectories

PEAK, FINAL = 3e-3, 5e-6


class Trained(NamedTuple):
    """What a run said about its resume, the rate of each step, and the optimiser's groups."""

    said: list[str]
    rates: list[float]
    groups: list[dict[str, Any]]


def run(
    folder: Path, steps: int, *, resume: bool = False, stop: int = 0, **options: object
) -> Trained:
    """Train, from ``stopped.ckpt`` if ``resume``, which the run replaces when it ends."""
    data, saved, watch = ToyTrajectories(episodes=6, batch_size=16), folder / "s.ckpt", Spoil(set())
    callbacks = [StopAt(stop or steps, saved), watch]
    runner = trainer(folder, steps, limit_val_batches=0, callbacks=callbacks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = saved if resume else None
        runner.fit(module(data, **options), data, ckpt_path=start, weights_only=True)
    said = [str(w.message) for w in caught if "resuming from" in str(w.message)]
    rates = [row["train/learning_rate"] for row in watch.rows]
    return Trained(said, rates, runner.optimizers[0].param_groups)


def test_an_unchanged_run_says_nothing_and_continues_its_rates(tmp_path: Path) -> None:
    whole = run(tmp_path, 12)
    first = run(tmp_path, 12, stop=7)
    second = run(tmp_path, 12, resume=True)
    assert not whole.said
    assert not second.said
    assert first.rates + second.rates == whole.rates


def test_the_recipes_rate_and_decay_hold_after_a_resume(tmp_path: Path) -> None:
    run(tmp_path, 12, stop=7, weight_decay=0.03)
    resumed = run(tmp_path, 12, resume=True, learning_rate=PEAK / 10, weight_decay=0.2)
    [rate, decay] = resumed.said
    assert "learning_rate is 0.0003 in the recipe and was 0.003 in the checkpoint" in rate
    assert "weight_decay is 0.2 in the recipe and was 0.03 in the checkpoint" in decay
    assert str(tmp_path / "s.ckpt") in rate
    assert {group["weight_decay"] for group in resumed.groups} == {0.2, 0.0}
    schedule, settings = Schedule.of_run(12), OptimizerSettings(warmup_steps=5)
    expected = [PEAK / 10 * schedule.rate(k, PEAK / 10, settings) for k in range(7, 12)]
    assert resumed.rates == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["stretch", "constant", "restart"])
def test_a_finished_run_that_is_extended_does_as_the_argument_says(
    tmp_path: Path, mode: str
) -> None:
    run(tmp_path, 10)
    longer = run(tmp_path, 30, resume=True, when_extended=mode)
    [said], rates = longer.said, longer.rates
    assert "has 30 steps in the recipe and had 10 in the checkpoint" in said
    assert f"the learning rate continues with {rates[0]:.3g} after {FINAL:.3g} " in said
    assert "when_extended" in said
    if mode == "constant":
        assert rates == pytest.approx([FINAL] * 20)
    elif mode == "restart":
        assert rates[0] == pytest.approx(PEAK / 5)
        assert max(rates) == pytest.approx(PEAK)
        assert rates[-1] < PEAK / 10
    else:
        assert PEAK / 2 < rates[0] < PEAK


def test_an_extended_run_that_is_interrupted_continues_the_same(tmp_path: Path) -> None:
    run(tmp_path, 10)
    whole = run(tmp_path, 30, resume=True, when_extended="restart")
    run(tmp_path, 10)
    first = run(tmp_path, 30, resume=True, stop=17, when_extended="restart")
    second = run(tmp_path, 30, resume=True, when_extended="restart")
    assert not second.said
    assert first.rates + second.rates == whole.rates


def test_state_that_is_no_schedule_is_none() -> None:
    assert Schedule.from_state_dict(Schedule(1, 2, 3).state_dict()) == Schedule(1, 2, 3)
    for state in (None, {}, {"start": 1}, {"start": "1", "stop": 2, "length": 3}):
        assert Schedule.from_state_dict(state) is None
