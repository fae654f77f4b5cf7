"""Roll out LeRobot's policies in the scenes of our rollouts, by LeRobot's own queue of actions."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.arrays import Images
from actionprior.networks.trunks.region import Region
from actionprior.rollout import ObservationMap
from actionprior.rollout.robot_env import RobotEnv, find_spec, make_robot_env
from bench.peers.demonstrations import WORDS_KEY, InstructionVectors, cut_image


class LeRobotPolicy:
    """A trained policy of LeRobot with its processors.

    Args:
        path: Folder ``pretrained_model`` of a checkpoint.
        tasks: Instructions of the demonstrations.
        robot: The robot, whose state features are those of the dataset in the same order.
        cut: Region of the first camera's image that the policy was trained on.
    """

    def __init__(
        self, path: Path, tasks: Sequence[str], robot: Embodiment, cut: Region | None = None
    ) -> None:
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors

        config = PreTrainedConfig.from_pretrained(path)
        policy = get_policy_class(config.type).from_pretrained(path)
        self._policy = policy.eval()
        self._before, self._after = make_pre_post_processors(config, str(path))
        self._vectors, self._robot, self._cut = InstructionVectors(tasks), robot, cut
        self.parameters = sum(weight.numel() for weight in policy.parameters())
        several = getattr(config, "n_obs_steps", 1) > 1
        self.look_every = 1 if several else int(config.n_action_steps)

    def reset(self) -> None:
        """Forget the queues of observations and actions."""
        self._policy.reset()

    def act(
        self, states: FloatArray, images: Images | None, instructions: Sequence[str]
    ) -> FloatArray:
        """Return the next actions (B, n_a).

        Args:
            states: States (B, n_s).
            images: Images (B, C, Y, X, 3), uint8.
            instructions: B instructions.

        Raises:
            UserError: No demonstration has any words of one of the instructions.
        """
        batch: dict[str, Any] = {
            "observation.state": torch.from_numpy(states),
            WORDS_KEY: torch.from_numpy(self._vectors(instructions)),
            "task": list(instructions),
        }
        if images is not None:
            by_camera = torch.from_numpy(images).swapaxes(0, 1).movedim(-1, -3)
            for i, (camera, image_BKYX) in enumerate(
                zip(self._robot.cameras, by_camera, strict=True)
            ):
                batch[camera] = cut_image(image_BKYX, self._cut if i == 0 else None)
        with torch.inference_mode():
            actions = self._after(self._policy.select_action(self._before(batch)))
        chosen: FloatArray = actions.float().cpu().numpy()
        return chosen


def lerobot_successes(
    policy: LeRobotPolicy,
    env_id: str,
    robot: Embodiment,
    observation_map: ObservationMap,
    seeds: Sequence[int],
    env_kwargs: dict[str, Any],
    max_steps: int | None,
) -> list[bool]:
    """Run one episode per seed, all side by side, and return the success of each.

    Success counts at the last step, as in :func:`actionprior.rollout.rollout`. A finished episode
    keeps its place in the batch, because LeRobot's policies hold queues of actions for all of it.
    """
    spec, looks = find_spec(env_id), policy.look_every
    with ExitStack() as stack:
        envs: list[RobotEnv] = []
        for _ in seeds:
            arguments = (robot, observation_map, None, frozenset[int](), max_steps, env_kwargs)
            env = make_robot_env(spec, *arguments, looks, None)
            stack.callback(env.close)
            envs.append(env)
        return _run(policy, envs, seeds)


def _run(policy: LeRobotPolicy, envs: list[RobotEnv], seeds: Sequence[int]) -> list[bool]:
    policy.reset()
    seen = [env.reset(seed=seed) for env, seed in zip(envs, seeds, strict=True)]
    observations, infos = [o for o, _ in seen], [i for _, i in seen]
    running, space = set(range(len(envs))), envs[0].action_space
    assert isinstance(space, Box)
    while running:
        states = np.stack([o["state"] for o in observations])
        pictures = [o["images"] for o in observations if "images" in o]
        words = [info["instruction"] for info in infos]
        actions = policy.act(states, np.stack(pictures) if pictures else None, words)
        actions = np.clip(actions, space.low, space.high)
        for i in sorted(running):
            observations[i], _, terminated, truncated, infos[i] = envs[i].step(actions[i])
            if terminated or truncated:
                running.discard(i)
    return [bool(info["success"]) for info in infos]
