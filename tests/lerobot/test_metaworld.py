"""Test that a policy sees and does the same in LeRobot's MetaWorld as in this project's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import make_pre_post_processors

import actionprior.benchmarks  # noqa: F401  registers MetaWorld
from actionprior.benchmarks.metaworld_tasks import METAWORLD_DESCRIPTIONS
from actionprior.commands.export import export
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import Policy
from actionprior.rollout import ObservationMap, rollout
from tests.helpers.environments import needs
from tests.helpers.policies import tiny_network, write_checkpoint

pytestmark = needs("metaworld", "metaworld")

ROOT = Path(__file__).parents[2]
STEPS = 12
PUBLISHED = {"image_size": 480, "effects": "all", "instructions": "published"}


def sawyer() -> Embodiment:
    hand = ActionGroup("hand", "right_arm", ["dx", "dy", "dz"], "end_effector_delta", "cm")
    grip = ActionGroup("gripper", "right_arm", ["gripper"], "gripper", offset=6)
    place = StateGroup("hand", "end_effector", ["x", "y", "z"], unit="m")
    opening = StateGroup("gripper", "end_effector", ["opening"], "gripper", offset=7)
    return Embodiment("sawyer", 80, [hand, grip], [place, opening], ["observation.image"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("policy")
    checkpoint = write_checkpoint(tiny_network([sawyer()]), at / "policy.ckpt")
    export(checkpoint, at / "policy", execute_steps=5)
    return at / "policy"


def in_lerobot(folder: Path, task: str, seed: int) -> tuple[list[Any], list[Any]]:
    """Act as lerobot-eval does. Return its environment's observations and the actions."""
    from lerobot.envs.metaworld import MetaworldEnv

    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=[f"--seed={seed}"])
    config.pretrained_path = folder
    policy = ActionPriorPolicy.from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, str(folder))
    policy.reset()
    env = MetaworldEnv(task, obs_type="pixels_agent_pos")
    observation, _ = env.reset(seed=seed)
    observations, actions = [], []
    for _ in range(STEPS):
        observations.append(observation)
        batch = {"pixels": observation["pixels"][None], "agent_pos": observation["agent_pos"][None]}
        ready = before({**preprocess_observation(batch), "task": [env.task_description]})
        with torch.inference_mode():
            action = after(policy.select_action(ready))[0].numpy()
        actions.append(action)
        observation, *_ = env.step(np.clip(action, -1, 1))
    env.close()
    return observations, actions


@pytest.mark.parametrize("task", ["push-v3", "drawer-open-v3"])
def test_lerobots_loop_and_ours_act_the_same(task: str, folder: Path) -> None:
    observations, actions = in_lerobot(folder, task, seed=7)
    same, own = Policy.load(folder), Policy.load(folder)
    env = gym.make(f"metaworld/{task}", disable_env_checker=True, **PUBLISHED)
    seen, info = env.reset(seed=7)
    for policy in (same, own):
        policy.reset(seed=7)
    for step, (shown, expected) in enumerate(zip(observations, actions, strict=True)):
        # The same observation gives the same action.
        given = {
            "observation.state": shown["agent_pos"].astype(np.float32),
            "observation.image": shown["pixels"],
            "task": info["instruction"],
        }
        np.testing.assert_allclose(same.select_action(given), expected, atol=1e-4)
        # Our environment shows the same, but for the last digit of a few pixels, and for their
        # first image, which shows goal and furniture of an earlier episode.
        np.testing.assert_allclose(seen["state"], shown["agent_pos"], atol=1e-4)
        if step:
            apart = np.abs(seen["image"].astype(int) - shown["pixels"].astype(int))
            assert (apart > 1).mean() < 1e-4
            given |= {"observation.state": seen["state"], "observation.image": seen["image"]}
        np.testing.assert_allclose(own.select_action(given), expected, atol=2e-3)
        seen, _, _, _, info = env.step(np.clip(expected, -1, 1))
    env.close()


def test_a_large_image_gives_the_action_of_a_shrunk_one(folder: Path) -> None:
    policies = {size: Policy.load(folder) for size in (480, 32)}
    chunks = {}
    for size, policy in policies.items():
        settings = PUBLISHED | {"image_size": size, "draw_size": 480, "effects": "sky"}
        env = gym.make("metaworld/push-v3", disable_env_checker=True, **settings)
        seen, info = env.reset(seed=7)
        policy.reset(seed=7)
        assert policy.network.trunk.image_size == 32  # type: ignore[attr-defined]  # SmallTrunk's
        chunks[size] = policy.select_action(
            {
                "observation.state": seen["state"],
                "observation.image": seen["image"],
                "task": info["instruction"],
            }
        )
        env.close()
    np.testing.assert_allclose(chunks[480], chunks[32], atol=5e-3)


@pytest.mark.slow
def test_lerobot_eval_and_our_rollouts_agree(folder: Path, tmp_path: Path) -> None:
    """The same episodes in LeRobot's environment: its own command, and our rollouts."""
    steps, seed, task = 20, 1000, "push-v3"
    # Their episodes always have 500 steps, which their renderer takes minutes for.
    code = (
        "import lerobot.envs.metaworld as m, lerobot.scripts.lerobot_eval as e; "
        "make = m.MetaworldEnv.__init__; "
        "m.MetaworldEnv.__init__ = lambda s, *a, **k: "
        f"(make(s, *a, **k), setattr(s, '_max_episode_steps', {steps}))[0]; e.main()"
    )
    words = [
        f"--policy.path={folder}",
        "--policy.device=cpu",
        "--env.type=metaworld",
        f"--env.task={task}",
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        "--eval.use_async_envs=false",
        f"--seed={seed}",
        f"--output_dir={tmp_path}/output",
        "--discover_packages_path=actionprior.lerobot",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    [result] = json.loads((tmp_path / "output/eval_info.json").read_text())["per_task"]
    gym.register(
        "test/LeRobotMetaWorld",
        "lerobot.envs.metaworld:MetaworldEnv",
        max_episode_steps=steps,
        kwargs={"task": task, "obs_type": "pixels_agent_pos"},
    )
    images = {"observation.image": "pixels"}
    result = rollout(
        network_from(folder),
        "test/LeRobotMetaWorld",
        episodes=2,
        observation_map=ObservationMap("agent_pos", images, text=METAWORLD_DESCRIPTIONS[task]),
        embodiment="sawyer",
        seed=seed,
        num_envs=2,
        execute_steps=5,
    )
    returns = [episode.episode_return for episode in result.episodes]
    assert abs(returns[0] / returns[1] - 1) > 0.02
    # Actions that were clipped are remembered as planned by LeRobot, and as executed by rollouts.
    np.testing.assert_allclose(result["metrics"]["sum_rewards"], returns, rtol=1e-3)


def network_from(folder: Path) -> PolicyNetwork:
    return Policy.load(folder).network
