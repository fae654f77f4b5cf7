"""Test the example as a user would run it, copied into a folder of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actionprior import Policy

EXAMPLE = Path(__file__).parents[2] / "examples" / "your_robot"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from actionprior.cli import main; main()", *words]
    outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    outside["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        command, cwd=folder, env=outside, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_the_example_trains_from_the_users_folder(tmp_path: Path) -> None:
    mine = Path(shutil.copytree(EXAMPLE, tmp_path / "mine"))
    rng = np.random.default_rng(0)
    (mine / "episodes").mkdir()
    for i in range(12):
        path = rng.normal(scale=0.05, size=(31, 7)).cumsum(0)
        image = rng.integers(255, size=(30, 64, 64, 3), dtype=np.uint8)
        parts = {"action": path[1:], "state": path[:-1], "image": image, "task": "wave"}
        np.savez(mine / "episodes" / f"{i:03d}.npz", **parts)
    words = ["fit", "--config=pretrain.yaml", "--trainer.max_steps=3", "--trainer.accelerator=cpu"]
    done = run(mine, *words, "--trainer.enable_progress_bar=false")
    assert done.returncode == 0, done.stderr
    prior = mine / "outputs/lightning_logs/version_0/checkpoints/prior.ckpt"
    assert prior.is_file()
    second = ["fit", "--config=finetune.yaml", f"--model.prior_checkpoint={prior}"]
    done = run(mine, *second, *words[2:], "--trainer.enable_progress_bar=false")
    assert done.returncode == 0, done.stderr
    policy = mine / "outputs/lightning_logs/version_1/checkpoints/policy.ckpt"
    assert Policy.load(policy).robot.name == "npz_arm"
    empty = run(mine, *words, "--data.folder=nowhere")
    assert empty.returncode == 2
    assert "nowhere: has no .npz file" in empty.stderr.strip().splitlines()[-1]
