"""A signal to one rank ends all of them after the same step, with a checkpoint."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actionprior.checkpoints.reading import read_checkpoint


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.two_ranks", "sigterm", str(tmp_path)]
    run = subprocess.run(command, timeout=120, cwd=Path(__file__).parents[2])
    assert run.returncode == 128 + signal.SIGTERM
    assert read_checkpoint(tmp_path / "hpc_ckpt_1.ckpt")["global_step"] == 3
    assert not list(tmp_path.glob("rank*"))  # neither reached the end
