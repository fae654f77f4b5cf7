"""Test that only messages that mean nothing are hidden, and only while a verb runs."""

import logging
import subprocess
import warnings
from pathlib import Path

import pytest

from actionprior import cli
from actionprior.training.quiet import quiet
from tests.helpers.command_line import LIGHTNING
from tests.helpers.datasets import write_dataset


def test_known_warnings_and_tips_are_hidden_and_others_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings(record=True) as caught, caplog.at_level("INFO", log.name):
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("The dirpath has changed from 'a' to 'b'", stacklevel=1)
            warnings.warn("Found 186 module(s) in eval mode at the start of training", stacklevel=1)
            warnings.warn("the loss is NaN", stacklevel=1)
            log.info("💡 Tip: buy something")
            log.info("arm: 5 windows")
        warnings.warn("The dirpath has changed from 'a' to 'b'", stacklevel=1)
        log.info("💡 Tip: again")
    assert [str(w.message)[:12] for w in caught] == ["the loss is ", "The dirpath "]
    assert caplog.messages == ["arm: 5 windows", "💡 Tip: again"]


@pytest.mark.slow
def test_a_users_run_prints_its_own_report_and_nothing_of_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("mine"), (20, 18, 20))
    cli.main(["describe", "mine", "--name=my_arm", "--out=my_arm.yaml"])
    words = ["fit", "--config=my_arm.yaml", "--data.batch_size=4", "--trainer.accelerator=cpu"]
    words += ["--trainer.val_check_interval=2", "--trainer.max_steps"]
    for steps, more in ((4, []), (6, ["--ckpt_path=last"])):
        command = [str(LIGHTNING), *words, str(steps), *more]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        lines = (ended.stdout + ended.stderr).splitlines()
        longer = [line for line in lines if line.startswith("warning: resuming from")]
        assert len(longer) == (steps == 6), "only the second run is longer than its rates"
        # The folder's name may hold anything, such as pytest-27.
        said = "\n".join(line for line in lines if line not in longer).replace(str(tmp_path), "")
        for word in ("Epoch", "-2", "Tip", "Warning", "warn", "GPU", "litlogger", "FLOPs"):
            assert word not in said, said
        for line in ("my_arm ", "held-out mean absolute error", "checkpoint: outputs", "next, Sta"):
            assert line in ended.stdout
        assert f"step {steps}/{steps}  train/loss" in ended.stderr
