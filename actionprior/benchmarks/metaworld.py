"""MetaWorld's tasks (Yu et al., CoRL 2019) with observations of a real robot: cameras and hand.

The package's own environments reveal where the objects are, read goals from a list of pickles,
continue after success, and render effects that are slow in software. These environments do not,
and they give an instruction. With ``effects="all"``, ``image_size=480`` and
``instructions="published"`` they show and say what LeRobot's MetaWorld environment does.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray
from PIL import Image

from actionprior.benchmarks.metaworld_tasks import METAWORLD_DESCRIPTIONS
from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark
from actionprior.benchmarks.saved_scene import SavedScene, save_scene, show_scene
from actionprior.benchmarks.tasks import METAWORLD_TASKS

COSTLY = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")
"""Effects that take most of a frame's time in a software renderer."""

Effects = Literal["none", "sky", "all"]
Instructions = Literal["short", "published"]
Observation = dict[str, NDArray[Any]]
Frame = NDArray[np.uint8]


class MetaWorldEnv(gym.Env[Any, NDArray[np.float32]]):
    """One task whose goal and objects are drawn at random from the seed.

    The observation holds ``state`` (4,), the hand's x, y, z [m] and the gripper's opening (0 to
    1), and ``image`` (Y, X, 3). The action (4,) is in -1 to 1: change of the hand's commanded
    position [cm], and the gripper (1 closes). The episode ends on success, or after 500 steps of
    1/80 s.

    Args:
        task: Name of the task, such as ``reach-v3``.
        images: True if observations contain images.
        image_size: Height and width of an image [pixels].
        camera: Camera, or several. The first camera's image is ``image``, and the images of the
            others are ``image_NAME``. ``corner4`` is where published policies look from, which is
            LeRobot's ``corner2`` after it has moved it. There are also ``corner``, ``corner2``,
            ``corner3``, ``topview``, ``behindGripper`` and ``gripperPOV``. The package's images
            of the corner cameras are upside down, so they are rotated by 180°.
        ends: True ends the episode on success.
        render_mode: ``rgb_array`` or None.
        draw_size: Height and width at which an image is drawn, before it is shrunk to
            ``image_size`` as trunks shrink images that are too large. This is antialiasing. 0
            draws at ``image_size``, where small things become ragged.
        effects: ``none`` draws no shadow, reflection, haze or sky, so the background is black.
            ``sky`` adds the grey background. ``all`` adds shadows and the rest, and the package's
            multisampling if images are not shrunk.
        shadow_size: Height and width of the shadow map [pixels] for ``all``. 0 selects the
            package's 4096, which takes most of the time. 512 looks almost the same.
        instructions: ``short`` for the sentences of this project, ``published`` for those of
            LeRobot's data set and environment, of which two are equal.
        goal_steps: Number of steps after which images no longer show the goal's marker, so that
            a policy has to remember it. 0 shows it always. Furniture stays.

    Raises:
        BenchmarkError: MetaWorld is not installed, or has no such task or camera, or an argument
            is out of range.
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
        camera: str | list[str] = "corner4",
        ends: bool = True,
        render_mode: str | None = None,
        draw_size: int = 0,
        effects: Effects = "none",
        shadow_size: int = 0,
        instructions: Instructions = "short",
        goal_steps: int = 0,
    ) -> None:
        self._mujoco = import_benchmark("mujoco", "metaworld")
        known = import_benchmark("metaworld.env_dict", "metaworld").ENV_CLS_MAP
        if task not in known:
            raise BenchmarkError(f"MetaWorld has no task {task!r}; it has {sorted(known)}")
        for name, value, choices in (
            ("effects", effects, get_args(Effects)),
            ("instructions", instructions, get_args(Instructions)),
        ):
            if value not in choices:
                raise BenchmarkError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
        if draw_size and draw_size < image_size:
            raise BenchmarkError(
                f"draw_size is {draw_size} and image_size {image_size}; images are shrunk, so "
                "draw_size must be 0 or at least image_size"
            )
        self.task = task
        self.render_mode = render_mode
        given = METAWORLD_DESCRIPTIONS if instructions == "published" else METAWORLD_TASKS
        self.instruction = given.get(task, task.rpartition("-")[0].replace("-", " "))
        self._images, self._ends = images, ends
        self._cameras = [camera] if isinstance(camera, str) else list(camera)
        self._size, self._draw_size = image_size, draw_size or image_size
        self._effects, self._shadow_size = effects, shadow_size
        self._goal_steps, self._steps = goal_steps, 0
        self._renderer: Any = None
        # As the package's `set_task` does, but with a visible goal drawn from the seed.
        sim = known[task]()
        sim._set_task_called, sim._partially_observable = True, False
        sim._freeze_rand_vec, sim.seeded_rand_vec = False, True
        del sim.sawyer_observation_space  # cached with the goal hidden
        self.simulation: Any = sim
        if not self._cameras:
            raise BenchmarkError("camera is an empty list; name at least one camera")
        for name in self._cameras:
            self._check_camera(name)
        sites = {sim.model.site(i).name for i in range(sim.model.nsite)}
        if goal_steps < 0 or (goal_steps and "goal" not in sites):
            raise BenchmarkError(
                f"goal_steps is {goal_steps}; expected 0, or more for a task with a goal's "
                f"marker, such as reach-v3 ({task})"
            )
        hand = sim._HAND_SPACE
        low, high = np.append(hand.low, 0), np.append(hand.high, 1)
        spaces: dict[str, Space[Any]] = {
            "state": Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        }
        for key in self._image_keys if images else ():
            spaces[key] = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = Dict(spaces)
        self.action_space = Box(-1, 1, (4,), np.float32)
        self.full_observation: NDArray[np.float64] = np.zeros(39)
        """The package's observation (39,): hand and objects (now and one step ago), and goal."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw goal and objects at random from the seed."""
        super().reset(seed=seed)
        if seed is not None:
            self.simulation.seed(seed)
        self.simulation.reset()
        self._steps = 0
        self.full_observation = self._moved_observation()
        return self._observe(), {"instruction": self.instruction, "success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action. ``info`` is the package's, with the instruction."""
        self.full_observation, reward, _, truncated, info = self.simulation.step(action)
        self._steps += 1
        if 0 < self._goal_steps <= self._steps:
            # Only what is drawn moves, below the floor, and the next step moves it back.
            self.simulation.data.site("goal").xpos[:] = (0.0, 0.0, -10.0)
        success = bool(info["success"])
        info = {**info, "instruction": self.instruction, "success": success}
        return self._observe(), float(reward), success and self._ends, truncated, info

    def render(self) -> Frame:
        """Render the first camera's image (Y, X, 3)."""
        return self.render_camera(self._cameras[0])

    def render_camera(self, name: str) -> Frame:
        """Render a camera's image (Y, X, 3).

        Raises:
            BenchmarkError: MetaWorld has no such camera.
        """
        self._check_camera(name)
        if self._renderer is None:
            self._renderer = self._make_renderer()
        self._renderer.update_scene(self.simulation.data, camera=name)
        image: Frame = self._renderer.render()
        if "corner" in name:
            image = np.ascontiguousarray(image[::-1, ::-1])
        if self._draw_size == self._size:
            return image
        # The filter of the trunks' `resize`, so that a policy may be shown the large image.
        small = Image.fromarray(image).resize((self._size, self._size), Image.Resampling.BILINEAR)
        return np.array(small)

    def save_scene(self) -> SavedScene:
        """Return where everything is now, to draw it later with ``show_scene``."""
        return save_scene(self.simulation.data)

    def show_scene(self, scene: SavedScene) -> None:
        """Draw a saved scene of this episode from now on, until the next step or reset."""
        show_scene(self.simulation.data, scene)

    def free_renderer(self) -> None:
        """Free the renderer's 140 MB. The next image makes a new one, in about 0.4 s."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def places(self) -> dict[str, NDArray[np.float64]]:
        """Return where the first object and the goal are (3,) [m], for diagnoses."""
        return {"object": self.full_observation[4:7], "goal": self.full_observation[36:39]}

    def close(self) -> None:
        """Close the renderer and the simulation."""
        self.free_renderer()
        self.simulation.close()

    def _moved_observation(self) -> NDArray[np.float64]:
        """Move what the package's ``reset`` has placed, and observe it.

        The package moves goals and furniture in the model only, so that they are seen at the
        previous episode's places until the first step.
        """
        sim = self.simulation
        self._mujoco.mj_forward(sim.model, sim.data)
        observation: NDArray[np.float64] = sim._get_obs()
        sim._prev_obs = observation[:18].copy()
        observation[18:36] = sim._prev_obs
        return observation

    def _observe(self) -> Observation:
        observed: Observation = {"state": self.full_observation[:4].astype(np.float32)}
        if self._images:
            drawn = [self.render_camera(name) for name in self._cameras]
            observed |= dict(zip(self._image_keys, drawn, strict=True))
        return observed

    @property
    def _image_keys(self) -> list[str]:
        return ["image", *(f"image_{name}" for name in self._cameras[1:])]

    def _check_camera(self, name: str) -> None:
        model = self.simulation.model
        known = [model.camera(i).name for i in range(model.ncam)]
        if name not in known:
            raise BenchmarkError(f"MetaWorld has no camera {name!r}; it has {sorted(known)}")

    def _make_renderer(self) -> Any:  # noqa: ANN401  MuJoCo is untyped
        model = self.simulation.model
        if self._effects != "all" or self._draw_size != self._size:
            model.vis.quality.offsamples = 0  # slower in software than to draw large and shrink
        if self._shadow_size:
            model.vis.quality.shadowsize = self._shadow_size
        renderer = self._mujoco.Renderer(model, self._draw_size, self._draw_size)
        drawn = {"none": (), "sky": ("SKYBOX",), "all": COSTLY}[self._effects]
        for flag in COSTLY:
            index = getattr(self._mujoco.mjtRndFlag, f"mjRND_{flag}")
            renderer.scene.flags[index] = int(flag in drawn)
        return renderer


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
