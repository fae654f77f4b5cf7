"""gym-aloha's two tasks (Zhao et al., RSS 2023) with the bounds of their joints.

The package declares bounds of -1 to 1 for all actions, although they are joint angles. With actions
clipped to these bounds, the elbows could not even keep the initial pose. It also draws three
cameras of 480 x 640 pixels at each step. This environment draws one, or none, at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark
from actionprior.benchmarks.saved_scene import SavedScene, save_scene, show_scene
from actionprior.benchmarks.tasks import ALOHA_TASKS

ARM_JOINTS = 16
"""Joints of both arms, where each gripper has two. The objects' free joints follow them."""

Observation = dict[str, NDArray[Any]]
Frame = NDArray[np.uint8]


class AlohaEnv(gym.Env[Any, NDArray[np.float32]]):
    """Two ViperX arms at one table.

    The observation holds ``state`` (14,), the joint angles [rad] of each arm and the opening of
    its gripper (1 is open), and ``image`` (Y, X, 3) of the camera ``top``. The action (14,) holds
    targets of the same entries. The episode ends on success, or after 400 steps of 1/50 s.

    Args:
        task: ``transfer_cube`` or ``insertion``.
        images: True if observations contain images.
        image_size: Height and width of an image [pixels], as one number for square images or two.
        ends: True ends the episode on success, which is the first touch: of the cube by the left
            gripper, or of the pin in the socket by the peg.
        shadow_size: Height and width of the shadow map [pixels]. 0 selects the package's 4096,
            which takes most of the time in a software renderer. 512 looks almost the same.
        render_mode: ``rgb_array`` or None.

    Raises:
        BenchmarkError: gym-aloha is not installed, or has no such task, or an image has no pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  Gymnasium's
    robot_name = "aloha"
    control_hz = 50

    def __init__(
        self,
        task: str,
        images: bool = True,
        image_size: int | Sequence[int] = (480, 640),
        ends: bool = True,
        shadow_size: int = 0,
        render_mode: str | None = None,
    ) -> None:
        package = import_benchmark("gym_aloha.env", "aloha")
        self._mujoco = import_benchmark("mujoco", "aloha")
        if task not in ALOHA_TASKS:
            raise BenchmarkError(f"gym-aloha has no task {task!r}; it has {list(ALOHA_TASKS)}")
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(size) != 2 or min(size) < 1:
            raise BenchmarkError(
                f"image_size is {image_size}; expected one positive number, or height and width"
            )
        self.task = task
        self.render_mode = render_mode
        self.instruction = ALOHA_TASKS[task]
        self._images, self._size, self._ends = images, size, ends
        self._shadow_size = shadow_size
        self._renderer: Any = None
        self._simulation = package.AlohaEnv(task, obs_type="pixels_agent_pos")
        task_of_package = self._simulation._env.task
        task_of_package.get_observation = lambda physics: {
            "qpos": task_of_package.get_qpos(physics),
            "images": {"top": np.empty(0, np.uint8)},  # the package draws three at each step
        }
        names = tuple(package.JOINTS)
        self.state_names = self.action_names = names
        limits = self.physics.model.jnt_range[:ARM_JOINTS]
        # Each arm has two fingers, which the package combines into one gripper from 0 to 1.
        limits = np.concatenate([limits[:6], [[0, 1]], limits[8:14], [[0, 1]]])
        low, high = limits.astype(np.float32).T
        self.action_space = Box(low, high, dtype=np.float32)
        spaces: dict[str, Space[Any]] = {
            "state": Box(-np.inf, np.inf, (len(names),), np.float32),
        }
        if images:
            spaces["image"] = Box(0, 255, (*size, 3), np.uint8)
        self.observation_space = Dict(spaces)

    @property
    def physics(self) -> Any:  # noqa: ANN401  dm_control is untyped
        """dm_control's ``Physics`` of the current episode, for experts."""
        return self._simulation._env.physics

    @property
    def object_poses(self) -> NDArray[np.float64]:
        """Poses of the cube, or of peg and socket (n, 7): x, y, z [m] and a quaternion, w first."""
        poses: NDArray[np.float64] = self.physics.data.qpos[ARM_JOINTS:].reshape(-1, 7).copy()
        return poses

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Place the objects at random from the seed."""
        super().reset(seed=seed)
        raw, _ = self._simulation.reset(seed=seed)
        return self._observe(raw), self._info(False)

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action. The reward is the package's, 0 to 4, where 4 is success."""
        raw, reward, success, _, _ = self._simulation.step(action)
        over = bool(success) and self._ends
        return self._observe(raw), float(reward), over, False, self._info(bool(success))

    def render(self) -> Frame:
        """Render the image (Y, X, 3) of the camera ``top``."""
        return self.render_camera("top")

    def render_camera(self, name: str) -> Frame:
        """Render a camera's image (Y, X, 3).

        Raises:
            BenchmarkError: gym-aloha has no such camera.
        """
        model = self.physics.model
        known = [model.id2name(i, "camera") for i in range(model.ncam)]
        if name not in known:
            raise BenchmarkError(f"gym-aloha has no camera {name!r}; it has {sorted(known)}")
        if self._renderer is None:
            self._renderer = self._make_renderer()
        self._renderer.update_scene(self.physics.data.ptr, camera=name)
        image: Frame = self._renderer.render()
        return image

    def save_scene(self) -> SavedScene:
        """Return where everything is now, to draw it later with ``show_scene``."""
        return save_scene(self.physics.data)

    def show_scene(self, scene: SavedScene) -> None:
        """Draw a saved scene from now on, until the next step or reset."""
        show_scene(self.physics.data, scene)

    def free_renderer(self) -> None:
        """Free the renderer's memory. The next image makes a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def close(self) -> None:
        """Close the renderer and the simulation."""
        self.free_renderer()
        self._simulation.close()

    def _make_renderer(self) -> Any:  # noqa: ANN401  MuJoCo is untyped
        model = self.physics.model.ptr
        model.vis.global_.offheight, model.vis.global_.offwidth = self._size
        if self._shadow_size:
            model.vis.quality.shadowsize = self._shadow_size
        return self._mujoco.Renderer(model, *self._size)

    def _observe(self, raw: dict[str, Any]) -> Observation:
        observed: Observation = {"state": raw["agent_pos"].astype(np.float32)}
        if self._images:
            observed["image"] = self.render()
        return observed

    def _info(self, success: bool) -> dict[str, Any]:
        return {"instruction": self.instruction, "success": success}
