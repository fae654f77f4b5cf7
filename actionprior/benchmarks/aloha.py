"""gym-aloha's two tasks (Zhao et al., RSS 2023) with the bounds of their joints.

The package declares bounds of -1 to 1 for all actions, although they are joint angles. With actions
clipped to these bounds, the elbows could not even keep the initial pose.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark
from actionprior.benchmarks.tasks import ALOHA_TASKS

Observation = dict[str, NDArray[Any]]


class AlohaEnv(gym.Env[Any, NDArray[np.float32]]):
    """Two ViperX arms at one table.

    The observation holds ``state`` (14,), the joint angles [rad] of each arm and the opening of
    its gripper (1 is open), and ``image`` (480, 640, 3). The action (14,) holds targets of the same
    entries. The episode ends on success.

    Args:
        task: ``transfer_cube`` or ``insertion``.
        render_mode: ``rgb_array`` or None.

    Raises:
        BenchmarkError: gym-aloha is not installed, or has no such task.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  Gymnasium's
    robot_name = "aloha"
    control_hz = 50

    def __init__(self, task: str, render_mode: str | None = None) -> None:
        package = import_benchmark("gym_aloha.env", "aloha")
        if task not in ALOHA_TASKS:
            raise BenchmarkError(f"gym-aloha has no task {task!r}; it has {list(ALOHA_TASKS)}")
        self.render_mode = render_mode
        self.instruction = ALOHA_TASKS[task]
        self._simulation = package.AlohaEnv(task, obs_type="pixels_agent_pos")
        names = tuple(package.JOINTS)
        self.state_names = self.action_names = names
        limits = self._simulation._env.physics.model.jnt_range[:16]
        # Each arm has two fingers, which the package combines into one gripper from 0 to 1.
        limits = np.concatenate([limits[:6], [[0, 1]], limits[8:14], [[0, 1]]])
        low, high = limits.astype(np.float32).T
        self.action_space = Box(low, high, dtype=np.float32)
        vector = Box(-np.inf, np.inf, (len(names),), np.float32)
        self.observation_space = Dict(
            {"state": vector, "image": Box(0, 255, (480, 640, 3), np.uint8)}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Place the objects at random from the seed."""
        super().reset(seed=seed)
        raw, _ = self._simulation.reset(seed=seed)
        return _observation(raw), self._info(False)

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action. The reward is the package's, 0 to 4, where 4 is success."""
        raw, reward, success, _, _ = self._simulation.step(action)
        return _observation(raw), float(reward), bool(success), False, self._info(bool(success))

    def render(self) -> NDArray[np.uint8]:
        """Render the camera's image (480, 640, 3)."""
        image: NDArray[np.uint8] = self._simulation.render()
        return image

    def _info(self, success: bool) -> dict[str, Any]:
        return {"instruction": self.instruction, "success": success}


def _observation(raw: dict[str, Any]) -> Observation:
    return {"state": raw["agent_pos"].astype(np.float32), "image": raw["pixels"]["top"]}
