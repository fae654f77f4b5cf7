"""Test LeRobot's own commands, in their own processes, with an exported folder."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actionprior.commands.export import export
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import Policy
from actionprior.rollout import ObservationMap, rollout
from tests.helpers.datasets import write_dataset
from tests.helpers.lerobot_toys import toy_point
from tests.helpers.lerobot_toys.toy_arm import START, picture, toy_arm
from tests.helpers.point_env import point_robot
from tests.helpers.policies import tiny_network, write_checkpoint
from tests.helpers.robots import windows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DISCOVER = "--discover_packages_path=actionprior.lerobot"
SEED = 1000


def lerobot(command: str, *words: str, folder: Path) -> str:
    """Run a command of LeRobot in ``folder``, and return its output."""
    ran = subprocess.run(
        [sys.executable, Path(sys.executable).with_name(f"lerobot-{command}"), *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_LEROBOT_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout + ran.stderr


def exported(network: PolicyNetwork, folder: Path, **settings: object) -> Path:
    checkpoint = write_checkpoint(network, folder / "policy.ckpt")
    export(checkpoint, folder / "policy", **settings)  # type: ignore[arg-type]  # settings of any kind
    return folder / "policy"


def with_short_movements(network: PolicyNetwork, robot: Embodiment, spread: float) -> PolicyNetwork:
    """Replace the statistics by those of short movements."""
    n = network.prior.normalizer
    n.fitted_E.fill_(False)
    n.fit(windows([robot], 40, network.chunk_length, spread=spread))
    return network


def evaluated(folder: Path, env: str, *words: str, episodes: int = 4) -> Path:
    """Run lerobot-eval on two environments at a time, and return its output folder."""
    lerobot(
        "eval",
        f"--policy.path={folder}",
        "--policy.device=cpu",
        f"--env.type={env}",
        f"--eval.n_episodes={episodes}",
        "--eval.batch_size=2",
        "--eval.use_async_envs=false",
        f"--output_dir={folder.parent / 'output'}",
        DISCOVER,
        *words,
        folder=folder.parent,
    )
    return folder.parent / "output"


def test_lerobot_eval_and_rollouts_agree(tmp_path: Path) -> None:
    robot = point_robot(["observation.image"])
    network = with_short_movements(tiny_network([robot]), robot, 0.003)
    folder = exported(network, tmp_path, execute_steps=5)
    output = evaluated(
        folder, "toy_point", "--env.discover_packages_path=tests.helpers.lerobot_toys"
    )
    result = rollout(
        network,
        toy_point.ENV_ID,
        episodes=4,
        observation_map=ObservationMap("agent_pos", {"observation.image": "pixels"}),
        embodiment="point",
        seed=SEED,
        num_envs=2,
        execute_steps=5,
    )
    [task] = json.loads((output / "eval_info.json").read_text())["per_task"]
    returns = [e.episode_return for e in result.episodes]
    assert len(set(returns)) == 4
    np.testing.assert_allclose(task["metrics"]["sum_rewards"], returns, rtol=1e-5)
    assert task["metrics"]["successes"] == [e.success for e in result.episodes]


def pusht_robot() -> Embodiment:
    """Describe the pusher of gym-pusht: position and target in pixels of 512 x 512."""
    group = "place", "right_arm", ["x", "y"], "end_effector_position", "px"
    return Embodiment(
        name="pusht",
        control_hz=10,
        action=[ActionGroup(*group, relative_to="place")],  # type: ignore[arg-type]  # a row of a table
        state=[StateGroup("place", "end_effector", ["x", "y"], unit="px")],
        cameras=["observation.image"],
    )


def test_lerobot_eval_and_rollouts_agree_on_pusht(tmp_path: Path) -> None:
    pytest.importorskip("gym_pusht")
    robot = pusht_robot()
    network = with_short_movements(tiny_network([robot]), robot, 5.0)  # stays within the workspace
    folder = exported(network, tmp_path, task="push the T onto its place")
    recorded = ["--eval.recording=true", "--env.observation_height=96"]
    size = "--env.observation_width=96"
    output = evaluated(folder, "pusht", "--env.episode_length=40", *recorded, size, episodes=2)
    kwargs = {"obs_type": "pixels_agent_pos", "render_mode": "rgb_array"}
    result = rollout(
        network,
        "gym_pusht/PushT-v0",
        episodes=2,
        observation_map=ObservationMap(
            "agent_pos", {"observation.image": "pixels"}, text="push the T onto its place"
        ),
        embodiment="pusht",
        seed=SEED,
        num_envs=2,
        env_kwargs=kwargs,
        max_steps=40,
    )
    for k, episode in enumerate(result.episodes):
        [file] = (output / "recordings" / "pusht_0" / f"env_{k}" / "data").rglob("*.parquet")
        steps = pd.read_parquet(file)
        assert episode.clipped_share == 0  # LeRobot does not report clipped actions to a policy
        np.testing.assert_allclose(np.stack(steps["agent_pos"]), episode.state_Ts, atol=1e-3)
        rewards = float(np.stack(steps["next.reward"]).sum())
        np.testing.assert_allclose(rewards, episode.episode_return, atol=1e-5)


# LeRobot drops the steps of the first 12-step chunk that real-time chunking took to plan. On a busy
# machine these are all steps, hence the low rate. The next plan must also not come too early.
@pytest.mark.parametrize(("inference", "fps"), [("sync", 20), ("rtc", 3)])
def test_lerobot_rollout_moves_a_robot(inference: str, fps: int, tmp_path: Path) -> None:
    network = with_short_movements(tiny_network([toy_arm()], prefix_steps=4), toy_arm(), 0.05)
    folder = exported(network, tmp_path, execute_steps=4)
    lerobot(
        "rollout",
        f"--policy.path={folder}",
        "--policy.device=cpu",
        "--policy.seed=5",
        "--robot.type=toy_arm",
        "--robot.discover_packages_path=tests.helpers.lerobot_toys",
        f"--inference.type={inference}",
        *(["--inference.queue_threshold=4"] if inference == "rtc" else []),
        "--task=wave",
        f"--fps={fps}",
        f"--duration={3 if fps == 20 else 8}",
        "--play_sounds=false",
        "--return_to_initial_position=false",
        DISCOVER,
        folder=tmp_path,
    )
    done = np.array([json.loads(s) for s in (tmp_path / "actions.jsonl").read_text().splitlines()])
    assert len(done) > (12 if inference == "sync" else 5)
    policy = Policy.load(folder)
    policy.reset(5)
    state = np.array(START, dtype=np.float32)
    seen = {"observation.state": state, "task": "wave", "observation.images.front": picture(0)}
    if inference == "rtc":  # it begins at a later step of its first chunk
        chunk = policy.predict_chunk(seen)
        assert np.abs(chunk - done[0]).max(axis=1).min() < 1e-5
        return
    for step, action in enumerate(done[:12]):
        seen |= {"observation.state": state, "observation.images.front": picture(step)}
        np.testing.assert_allclose(action, policy.select_action(seen), atol=1e-5)
        state = action.astype(np.float32)


def test_lerobot_train_runs_and_its_policy_acts(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    data = write_dataset(tmp_path / "set", (30, 20), cameras={"observation.images.front": "image"})
    words = [
        "--dataset.repo_id=lab/set",
        f"--dataset.root={data}",
        "--policy.device=cpu",
        "--batch_size=4",
        "--num_workers=0",
        "--log_freq=1",
        "--wandb.enable=false",
        "--steps=3",
        DISCOVER,
    ]
    start = ["--policy.type=actionprior", "--policy.chunk_size=6", "--output_dir=first"]
    output = lerobot("train", *start, *words, folder=tmp_path)
    assert "loss:" in output
    first = tmp_path / "first" / "checkpoints" / "last" / "pretrained_model"
    more = [f"--policy.path={first}", "--output_dir=second"]
    lerobot("train", *more, *words, folder=tmp_path)
    second = tmp_path / "second" / "checkpoints" / "last" / "pretrained_model"
    before, after = (Policy.load(folder) for folder in (first, second))
    assert after.robot == before.robot
    old, new = before.network.state_dict(), after.network.state_dict()
    statistics = [key for key in old if "normalizer" in key]
    assert all(np.array_equal(old[key], new[key]) for key in statistics)
    assert any(not np.array_equal(old[key], new[key]) for key in old)


def test_an_installed_plugin_needs_no_flag(tmp_path: Path) -> None:
    source = ROOT / "examples" / "lerobot_policy_actionprior"
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = (
        "from lerobot.configs import PreTrainedConfig\n"
        "from lerobot.utils.import_utils import register_third_party_plugins\n"
        "register_third_party_plugins()\n"
        "print(PreTrainedConfig.get_choice_class('actionprior').__module__)"
    )
    path = os.pathsep.join([str(tmp_path / "installed"), str(ROOT)])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "actionprior.lerobot.configuration_actionprior"
