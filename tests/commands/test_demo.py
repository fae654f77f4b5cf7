"""A tiny demo from end to end, and its report on known numbers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from actionprior.commands._demo_report import DemoRun, report
from actionprior.errors import UserError
from actionprior.study.jobs import Jobs

PROJECT = Path(__file__).parents[2]
KEYS = {
    "success_prior",
    "success_no_prior",
    "success_prior_ci95",
    "success_no_prior_ci95",
    "rollouts",
    "seeds",
    "initial_loss_ratio",
    "initial_grad_norm_ratio",
    "steps_to_mae_ratio",
    "minutes",
}


def last_result(text: str) -> dict[str, object]:
    line = text.strip().splitlines()[-1]
    assert line.startswith("RESULT ")
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.slow
def test_the_demo_runs_from_a_clone(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "recipes", tmp_path / "recipes")
    command = [sys.executable, "-c", "from actionprior.cli import main; main()"]
    done = subprocess.run(
        [*command, "demo", "--preset=smoke"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = last_result(done.stdout)
    assert set(result) >= KEYS
    assert result["rollouts"] == 4  # one of each task
    with Image.open(tmp_path / "outputs/demo/smoke/demo.png") as picture:
        assert picture.size[0] > 1000
    smoke = tmp_path / "outputs/demo/smoke"
    shutil.rmtree(smoke / "no_prior-0")  # as if it had been interrupted
    # The checkpoints of a prior in training must not count as the prior.
    assert not list((smoke / "pretrain").rglob("prior.ckpt"))
    assert (smoke / "prior.ckpt").is_file()
    again = subprocess.run(
        [*command, "demo", "--preset=smoke", "--reuse=true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "smoke/no_prior-0" in again.stdout, again.stdout + again.stderr
    assert again.stdout.count("$ lightning fit") == 1
    assert last_result(again.stdout)["success_prior"] == result["success_prior"]


def fake_run(folder: Path, arm: str, seed: int, *, won: int, losses: list[float]) -> DemoRun:
    """Write a log folder as a finished run leaves it."""
    run = DemoRun(arm, seed, folder / f"{arm}-{seed}")
    with SummaryWriter(str(run.log_dir)) as writer:
        for step, loss in enumerate(losses):
            writer.add_scalar("train/loss_pred", loss, step)
            writer.add_scalar("train/grad_norm", 10 * loss, step)
            if step % 2:
                writer.add_scalar("val/mae_normalized", loss, step)
    rollouts = run.log_dir / "rollouts" / "step_00000020"
    rollouts.mkdir(parents=True)
    episodes = [{"success": k < won} for k in range(10)]
    (rollouts / "results.json").write_text(
        json.dumps({"environments": [{"env_id": "a/Reach", "episodes": episodes}]})
    )
    (rollouts / "a_Reach_1_success.mp4").write_bytes(b"a short film")
    (rollouts / "a_Lift_1_success.mp4").write_bytes(b"a film")
    (rollouts / "a_Place_1_failure.mp4").write_bytes(b"a failure")
    return run


def test_the_report_reads_back_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = [1.0] * 10 + [0.5, 0.2, 0.2, 0.1]
    slow = [4.0] * 10 + [2.0, 1.0, 0.6, 0.2]
    runs = [
        fake_run(tmp_path, arm, seed, won=won + seed, losses=losses)
        for seed in (0, 1)
        for arm, won, losses in (("prior", 8, fast), ("no_prior", 2, slow))
    ]
    report(runs, tmp_path, 30, 14, 3.14)
    out = capsys.readouterr().out
    result = last_result(out)
    assert result["success_prior"] == pytest.approx(17 / 20)
    assert result["success_no_prior"] == pytest.approx(5 / 20)
    assert result["success_prior_by_seed"] == {"0": 0.8, "1": 0.9}
    low, high = result["success_prior_ci95"]
    assert 0.6 < low < 0.85 < high < 0.96
    assert result["rollouts"] == 20
    assert result["seeds"] == [0, 1]
    assert result["initial_loss_ratio"] == pytest.approx(4)
    assert result["initial_grad_norm_ratio"] == pytest.approx(4)
    assert result["steps_to_mae_ratio"] == pytest.approx(14 / 12, abs=1e-3)
    assert result["minutes"] == 3.1
    assert (tmp_path / "success.mp4").read_bytes() == b"a film"
    assert "85.0 %" in out


def test_a_failed_job_is_reported_with_its_log(tmp_path: Path) -> None:
    with Jobs(tmp_path) as jobs:
        jobs.start("odd", ["juggle"])
        with pytest.raises(UserError, match=r"odd failed: error: unknown verb 'juggle'.*odd\.log"):
            jobs.wait()
