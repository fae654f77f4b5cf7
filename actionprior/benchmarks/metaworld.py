"""MetaWorld's tasks (Yu et al., CoRL 2019) with observations of a real robot: camera and hand.

The package's own environments reveal where the objects are, read goals from a list of pickles,
continue after success, and render effects that are slow in software. These environments do not,
and they give an instruction.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark
from actionprior.benchmarks.tasks import METAWORLD_TASKS

COSTLY = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")
"""Effects that take most of a frame's time in a software renderer."""

Observation = dict[str, NDArray[Any]]


class MetaWorldEnv(gym.Env[Any, NDArray[np.float32]]):
    """One task whose goal and objects are drawn at random from the seed.

    The observation holds ``state`` (4,), the hand's x, y, z [m] and the gripper's opening (0 to
    1), and ``image`` (Y, X, 3). The action (4,) is in -1 to 1: change of the hand's commanded
    position [cm], and the gripper (1 closes). The episode ends on success, or after 500 steps of
    1/80 s.

    Args:
        task: Name of the task, such as ``reach-v3``.
        images: True if observations contain an image.
        image_size: Height and width of the image [pixels].
        camera: ``corner4`` (the usual ``corner2``, but nearer), ``corner``, ``corner2``,
            ``corner3``, ``topview``, ``behindGripper`` or ``gripperPOV``. The package's images of
            the corner cameras are upside down, so they are rotated by 180°.
        ends: True ends the episode on success.
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
        self._mujoco = import_benchmark("mujoco", "metaworld")
        known = import_benchmark("metaworld.env_dict", "metaworld").ENV_CLS_MAP
        if task not in known:
            raise BenchmarkError(f"MetaWorld has no task {task!r}; it has {sorted(known)}")
        self.task = task
        self.render_mode = render_mode
        self.instruction = METAWORLD_TASKS.get(task, task.rpartition("-")[0].replace("-", " "))
        self._images, self._ends, self._camera = images, ends, camera
        self._size = image_size
        self._renderer: Any = None
        # As the package's `set_task` does, but with a visible goal drawn from the seed.
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
        """The package's observation (39,): hand and objects (now and one step ago), and goal."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw goal and objects at random from the seed."""
        super().reset(seed=seed)
        if seed is not None:
            self.simulation.seed(seed)
        self.full_observation, _ = self.simulation.reset()
        return self._observe(), {"instruction": self.instruction, "success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action. ``info`` is the package's, with the instruction."""
        self.full_observation, reward, _, truncated, info = self.simulation.step(action)
        success = bool(info["success"])
        info = {**info, "instruction": self.instruction, "success": success}
        return self._observe(), float(reward), success and self._ends, truncated, info

    def render(self) -> NDArray[np.uint8]:
        """Render the camera's image (Y, X, 3)."""
        if self._renderer is None:
            model = self.simulation.model
            model.vis.quality.offsamples = 0
            self._renderer = self._mujoco.Renderer(model, self._size, self._size)
            for flag in COSTLY:
                self._renderer.scene.flags[getattr(self._mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._renderer.update_scene(self.simulation.data, camera=self._camera)
        image: NDArray[np.uint8] = self._renderer.render()
        return np.ascontiguousarray(image[::-1, ::-1]) if "corner" in self._camera else image

    def places(self) -> dict[str, NDArray[np.float64]]:
        """Return where the first object and the goal are (3,) [m], for diagnoses."""
        return {"object": self.full_observation[4:7], "goal": self.full_observation[36:39]}

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.simulation.close()

    def _observe(self) -> Observation:
        state: Observation = {"state": self.full_observation[:4].astype(np.float32)}
        return {**state, "image": self.render()} if self._images else state


class Expert:
    """The package's scripted expert of the environment's task. It knows the full state.

    Args:
        env: A ``MetaWorldEnv``, wrapped or not.

    Raises:
        BenchmarkError: The environment is not a ``MetaWorldEnv``.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        bare = env.unwrapped
        if not isinstance(bare, MetaWorldEnv):
            raise BenchmarkError(f"{bare} is no MetaWorld task; use the expert of its own suite")
        self._env = bare
        policies = import_benchmark("metaworld.policies", "metaworld").ENV_POLICY_MAP
        self._policy = policies[bare.task]()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode, since some experts have a memory."""
        self._policy = type(self._policy)()

    def __call__(self, observation: object = None) -> NDArray[np.float32]:
        """Return the action (4,) in -1 to 1. ``observation`` is not used."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the expert warns that its action exceeds the bounds
            action = self._policy.get_action(self._env.full_observation)
        within: NDArray[np.float32] = np.clip(action, -1, 1).astype(np.float32)
        return within
