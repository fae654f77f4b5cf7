"""The guide from an empty folder: a new arm with two cameras, from recordings to LeRobot's rollout.

Each command is a process of its own, started in the user's folder outside of the repository.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.helpers.recordings_elsewhere import write_csv, write_pictures
from tests.helpers.serving_process import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
HELPERS = Path(__file__).parent / "helpers" / "user_folder"
JOINTS = [*(f"joint_{n}.pos" for n in range(1, 7)), "gripper.pos"]
SIZES = {"front": (48, 64), "wrist": (40, 40)}
FRAMES, EPISODES = 30, 20
TRAINER = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
CHECKPOINTS = "outputs/lightning_logs/version_{}/checkpoints"


def record(folder: Path) -> None:
    """Record reaching motions [rad] that end in closing the gripper, at 20 Hz."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    phase_T = np.linspace(0, 1, FRAMES)
    ease_T = phase_T**2 * (3 - 2 * phase_T)
    for episode in range(EPISODES):
        goal = rng.uniform(-1, 1, 6)
        state_Tn = np.column_stack([ease_T[:, None] * goal, phase_T > 0.8])
        action_Tn = np.vstack([state_Tn[1:], state_Tn[-1:]])
        for camera, size in SIZES.items():
            images = rng.integers(0, 60, (FRAMES, *size, 3), np.uint8)
            place = (np.array(size) * (0.3 + 0.2 * goal[:2])).astype(int)
            images[:, place[0] : place[0] + 9, place[1] : place[1] + 9] = (200, 60, 40)
            images += (100 * ease_T)[:, None, None, None].astype(np.uint8)
            write_pictures(folder / f"{episode}_{camera}", images)
        columns = dict(zip(JOINTS, state_Tn.round(6).T, strict=True))
        columns |= {f"target_{n}": c for n, c in zip(JOINTS, action_Tn.round(6).T, strict=True)}
        columns["task"] = ["put the cube into the box"] * FRAMES
        write_csv(folder / f"{episode}.csv", columns)


def environment(folder: Path) -> dict[str, str]:
    # The folder itself, for lerobot-rollout, which imports the robot.
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", ""), str(folder)])
    own = {"ACTIONPRIOR_CACHE": str(folder / "cache"), "HF_LEROBOT_HOME": str(folder / "home")}
    return os.environ | own | {"PYTHONPATH": path}


def run(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command as a user types it, and return what it prints."""
    program = [sys.executable] if words[0].endswith(".py") else []
    done = subprocess.run(
        [*program, *(words if program else (str(TOOLS / words[0]), *words[1:]))],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_guide_from_an_empty_folder(tmp_path: Path) -> None:
    shutil.copytree(HELPERS, tmp_path, dirs_exist_ok=True)
    record(tmp_path / "recordings")
    targets = f"--action=[{', '.join(f'target_{name}' for name in JOINTS)}]"
    names = f"[{', '.join(JOINTS)}]"
    cameras = "--cameras={front: '{stem}_front', wrist: '{stem}_wrist'}"
    words = ["--source=recordings", "--out=my_data", "--control_hz=20", "--robot=my_arm", cameras]
    said = run(
        tmp_path, "lightning", "convert", *words, f"--state={names}", targets,
        f"--action_names={names}",
    )  # fmt: skip
    assert "20 episodes, 600 frames" in said

    said = run(tmp_path, "lightning", "describe", "my_data", "--out=my_arm.yaml")
    assert "lightning doctor --config my_arm.yaml" in said
    assert "to check: cameras differ in size" in said
    assert said.count("to check") == 1
    (robot,) = yaml.safe_load((tmp_path / "my_arm.yaml").read_text())["data"]["init_args"][
        "embodiments"
    ]
    assert [len(group["features"]) for group in robot["action"]] == [6, 1]
    assert robot["cameras"] == ["observation.images.front", "observation.images.wrist"]
    assert "0 errors" in run(tmp_path, "lightning", "doctor", "--config=my_arm.yaml")

    stage1 = ["lightning", "fit", "--config=my_arm.yaml", "--data.batch_size=32", *TRAINER]
    press = ["--trainer.callbacks+=press.CtrlC", "--trainer.callbacks.step=4"]
    errors = run(tmp_path, *stage1, *press, "--trainer.max_steps=100000", code=130)
    saved = re.search(r"saved step (\d+); to resume, run .* with --ckpt_path (\S+)", errors)
    assert saved, errors[-2000:]
    more = [f"--trainer.max_steps={int(saved[1]) + 3}", f"--ckpt_path={saved[2]}"]
    assert "trained 3 steps" in run(tmp_path, *stage1, *more)
    (prior,) = tmp_path.glob("outputs/lightning_logs/version_*/checkpoints/prior.ckpt")

    stack = f"--config={ROOT / 'recipes/stack/vla.yaml'}"
    stage2 = [
        "lightning",
        "fit",
        "--config=my_arm.yaml",
        stack,
        f"--model.prior_checkpoint={prior}",
    ]
    run(tmp_path, *stage2, "--trainer.max_steps=3", "--data.batch_size=8", *TRAINER)
    (policy,) = tmp_path.glob("outputs/lightning_logs/version_*/checkpoints/policy.ckpt")
    shutil.copy(policy, tmp_path / "policy.ckpt")
    run(
        tmp_path, "lightning", "visualize", "--config=my_arm.yaml", stack,
        "--ckpt_path=policy.ckpt", "--out=pictures",
    )  # fmt: skip
    assert {p.suffix for p in (tmp_path / "pictures").iterdir()} == {".png", ".mp4"}

    assert "moved True" in run(tmp_path, "control.py")
    run(tmp_path, "lightning", "export", "--ckpt_path=policy.ckpt", "--out=exported")
    with served(tmp_path / "exported") as server:
        assert "chunk (15, 7)" in run(tmp_path, "robot_side.py", str(server.port))
    said = run(
        tmp_path, "lerobot-rollout", "--policy.path=exported", "--policy.device=cpu",
        "--robot.type=my_arm", "--robot.discover_packages_path=my_arm", "--fps=20",
        "--task=put the cube into the box", "--duration=2", "--play_sounds=false",
        "--return_to_initial_position=false", "--discover_packages_path=actionprior.lerobot",
    )  # fmt: skip
    moved = re.search(r"the arm moved to \[(.*)\]", said)
    assert moved, said[-2000:]
    assert any(abs(float(value)) > 0 for value in moved[1].split(","))
