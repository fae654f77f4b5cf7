"""A signal to one rank, or Ctrl-C, ends all ranks after the same step, with a checkpoint."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning import Callback, LightningModule, Trainer

from actionprior.checkpoints.reading import read_checkpoint
from actionprior.checkpoints.resume import furthest
from actionprior.training.stop import StopBetweenSteps
from tests.helpers.stage1_runs import module, trainer
from tests.helpers.synthetic import ToyTrajectories


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.two_ranks", "sigterm", str(tmp_path)]
    run = subprocess.run(command, timeout=120, cwd=Path(__file__).parents[2])
    assert run.returncode == 128 + signal.SIGTERM
    assert read_checkpoint(tmp_path / "hpc_ckpt_1.ckpt")["global_step"] == 3
    assert not list(tmp_path.glob("rank*"))  # neither reached the end


class Press(Callback):
    """Press Ctrl-C in a step, ``times`` times."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_before_optimizer_step(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            for _press in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_and_says_how_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    data = ToyTrajectories(episodes=6, batch_size=8)
    callbacks: list[Callback] = [Press(2), StopBetweenSteps()]
    with pytest.raises(SystemExit) as stop:
        trainer(tmp_path, 9, limit_val_batches=0, callbacks=callbacks).fit(module(data), data)
    assert stop.value.code == 128 + signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    path = tmp_path / "hpc_ckpt_1.ckpt"
    assert read_checkpoint(path)["global_step"] == 3
    printed = capsys.readouterr().err
    assert "press it again to stop at once" in printed
    assert f"saved step 3; to resume, run the same command with --ckpt_path {path}" in printed
    assert furthest([tmp_path], 1) == path.resolve()
    resumed = trainer(tmp_path, 9, limit_val_batches=0, callbacks=[StopBetweenSteps()])
    again = ToyTrajectories(episodes=6, batch_size=8)
    resumed.fit(module(again), again, ckpt_path=path, weights_only=True)
    assert resumed.global_step == 9
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    data = ToyTrajectories(episodes=6, batch_size=8)
    runner = trainer(
        tmp_path, 9, limit_val_batches=0, callbacks=[Press(2, times=2), StopBetweenSteps()]
    )
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        runner.fit(module(data), data)
    assert runner.global_step == 2
    assert "Ctrl-C: stopped at step 2; later steps than the last save" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.ckpt"))
    assert signal.getsignal(signal.SIGINT) is before


class PressEarly(Callback):
    """Press Ctrl-C before training begins."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_before_training_says_that_nothing_was_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    data = ToyTrajectories(episodes=6, batch_size=8)
    runner = trainer(tmp_path, 9, callbacks=[PressEarly(), StopBetweenSteps()])
    try:
        with pytest.raises(SystemExit):
            runner.fit(module(data), data)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from now on
    assert "Ctrl-C: nothing was trained, so nothing was saved\n" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.ckpt"))


class SignalAfterwards(Callback):
    """Get a signal in what follows training or testing, which a callback does."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), self.number)
        raise AssertionError("the signal had no effect")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_end(trainer, pl_module)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("verb", ["fit", "test"])
def test_what_follows_training_ends_at_once(
    tmp_path: Path, number: signal.Signals, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    data = ToyTrajectories(episodes=6, batch_size=8)
    trained = module(data)
    if verb == "test":
        trainer(tmp_path, 3, limit_val_batches=0).fit(trained, data)
    callbacks: list[Callback] = [SignalAfterwards(number), StopBetweenSteps()]
    runner = trainer(tmp_path, 3, limit_val_batches=0, callbacks=callbacks)
    with pytest.raises(SystemExit) as stop:
        getattr(runner, verb)(trained, data)
    assert stop.value.code == (128 + number if number == signal.SIGTERM else 1)
    assert not list(tmp_path.glob("hpc_ckpt*"))
    if number == signal.SIGINT:
        wanted = "training was over and is saved" if verb == "fit" else "test has not ended"
        assert wanted in capsys.readouterr().err
    signal.signal(signal.SIGINT, before[0])
    assert signal.getsignal(signal.SIGTERM) is before[1]
