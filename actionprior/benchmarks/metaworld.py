"""MetaWorld's tasks (Yu et al., CoRL 2019), seen as a robot sees them: camera, hand and words.

The package's own environments show where the objects are, take goals from a list of pickles, go on
after success and draw frames with all that a software renderer is slow at; these do not.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from actionprior.benchmarks.optional_import import BenchmarkError, benchmark
from actionprior.benchmarks.tasks import METAWORLD_TASKS

COSTLY = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")
"""What a software renderer spends most of a frame on."""

Observation = dict[str, NDArray[Any]]


class MetaWorldEnv(gym.Env[Any, NDArray[np.float32]]):
    """One task, with goal and objects drawn anew by each seed.

    Observation: ``state`` (4,), hand x, y, z [m] and the gripper's opening (0 to 1), and ``image``
    (Y, X, 3). Action (4,), -1 to 1: change of the hand's commanded place [cm], and the gripper
    (1 closes). The episode ends with success, or after 500 steps of 1/80 s.

    Args:
        task: such as ``reach-v3``.
        images: whether observations hold an image.
        image_size: edge of the image [pixels].
        camera: ``corner4`` (the usual ``corner2``, nearer), ``corner``, ``corner2``, ``corner3``,
            ``topview``, ``behindGripper`` or ``gripperPOV``. The corners' pictures, which the
            package has upside down, are turned upright.
        ends: whether success ends the episode.
        render_mode: ``rgb_array`` or None.

    Raises:
        BenchmarkError: MetaWorld is not installed, or has no such task or camera.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  Gymnasium's
    robot_name = "sawyer"
    control_hz = 80
    state_names = ("x", "y", "z", "opening")
    action_names = ("dx", "dy", "dz", "gripper")

    def __init__(
        self,
        task: str,
        images: bool = True,
        image_size: int = 64,
        camera: str = "corner4",
        ends: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self._mujoco = benchmark("mujoco", "metaworld")
        known = benchmark("metaworld.env_dict", "metaworld").ENV_CLS_MAP
        if task not in known:
            raise BenchmarkError(f"MetaWorld has no task {task!r}; it has {sorted(known)}")
        self.task = task
        self.render_mode = render_mode
        self.instruction = METAWORLD_TASKS.get(task, task.rpartition("-")[0].replace("-", " "))
        self._images, self._ends, self._camera = images, ends, camera
        self._size = image_size
        self._renderer: Any = None
        # What the package's `set_task` does from a pickled goal: shown, and drawn by our seed.
        sim = known[task]()
        sim._set_task_called, sim._partially_observable = True, False
        sim._freeze_rand_vec, sim.seeded_rand_vec = False, True
        del sim.sawyer_observation_space  # cached with the goal hidden
        self.simulation: Any = sim
        cameras = [sim.model.camera(i).name for i in range(sim.model.ncam)]
        if camera not in cameras:
            raise BenchmarkError(f"MetaWorld has no camera {camera!r}; it has {sorted(cameras)}")
        hand = sim._HAND_SPACE
        low, high = np.append(hand.low, 0), np.append(hand.high, 1)
        spaces: dict[str, Space[Any]] = {
            "state": Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        }
        if images:
            spaces["image"] = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = Dict(spaces)
        self.action_space = Box(-1, 1, (4,), np.float32)
        self.full_observation = np.zeros(39)
        """What the package shows: hand, objects (twice: now and a step ago) and goal (39,)."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw goal and objects from the seed."""
        super().reset(seed=seed)
        if seed is not None:
            self.simulation.seed(seed)
        self.full_observation, _ = self.simulation.reset()
        return self._observe(), {"instruction": self.instruction, "success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move; ``info`` is the package's, with the instruction."""
        self.full_observation, reward, _, truncated, info = self.simulation.step(action)
        success = bool(info["success"])
        told = {**info, "instruction": self.instruction, "success": success}
        return self._observe(), float(reward), success and self._ends, truncated, told

    def render(self) -> NDArray[np.uint8]:
        """The camera's picture (Y, X, 3)."""
        if self._renderer is None:
            model = self.simulation.model
            model.vis.quality.offsamples = 0
            self._renderer = self._mujoco.Renderer(model, self._size, self._size)
            for flag in COSTLY:
                self._renderer.scene.flags[getattr(self._mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._renderer.update_scene(self.simulation.data, camera=self._camera)
        image: NDArray[np.uint8] = self._renderer.render()
        return np.ascontiguousarray(image[::-1, ::-1]) if "corner" in self._camera else image

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.simulation.close()

    def _observe(self) -> Observation:
        seen: Observation = {"state": self.full_observation[:4].astype(np.float32)}
        return {**seen, "image": self.render()} if self._images else seen


class Expert:
    """The package's scripted expert of the environment's task; it sees what the robot does not.

    Args:
        env: a ``MetaWorldEnv``, wrapped or not.

    Raises:
        BenchmarkError: it is something else.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        bare = env.unwrapped
        if not isinstance(bare, MetaWorldEnv):
            raise BenchmarkError(f"{bare} is no MetaWorld task; it has another expert")
        self._env = bare
        policies = benchmark("metaworld.policies", "metaworld").ENV_POLICY_MAP
        self._policy = policies[bare.task]()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode: some experts remember."""
        self._policy = type(self._policy)()

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """The action (4,), within -1 to 1; ``observation`` is not looked at."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it asks for more than the bounds allow
            action = self._policy.get_action(self._env.full_observation)
        within: NDArray[np.float32] = np.clip(action, -1, 1).astype(np.float32)
        return within
