"""A point to move to a target: a real environment that takes microseconds per step.

Registered as ``test/Point-v0`` (observation: the state vector) and ``test/PointCamera-v0``
(observation: state and image).
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from actionprior.batch import Observation
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.rollout import ObservationMap, RolloutResult, rollout

STEP = 0.1
REACHED = 0.02


def point_robot(cameras: list[str] | None = None, **changes: Any) -> Embodiment:
    values: dict[str, Any] = {
        "name": "point",
        "control_hz": 10.0,
        "action": [ActionGroup("move", "right_arm", ["dx", "dy"], "end_effector_delta", "m")],
        "state": [StateGroup("place", "joints", ["x", "y", "target_x", "target_y"], unit="m")],
        "cameras": cameras or [],
    }
    return Embodiment(**(values | changes))


class PointEnv(gymnasium.Env[Any, Any]):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  as its base class has it

    def __init__(
        self,
        render_mode: str | None = None,
        camera: bool = False,
        info_key: str = "is_success",
        instruction: str = "go to the target",
    ) -> None:
        self.render_mode = render_mode
        self.camera = camera
        self.info_key = info_key
        self.instruction = instruction
        self.steps = 0
        self.action_space = Box(-STEP, STEP, (2,), np.float64)
        state = Box(-np.inf, np.inf, (4,), np.float64)
        image = Box(0, 255, (20, 30, 3), np.uint8)
        self.observation_space = Dict({"arm": Dict({"state": state}), "image": image})
        if not camera:
            self.observation_space = state  # type: ignore[assignment]  # Gymnasium: of any kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.5, 0.5, 2)
        self.target = self.np_random.uniform(-0.5, 0.5, 2)
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.place = self.place + action + self.np_random.normal(0, 1e-3, 2)
        self.steps += 1
        distance = float(np.linalg.norm(self.place - self.target))
        return self._observe(), -distance, distance < REACHED, False, self._info()

    def render(self) -> Any:
        image = np.zeros((20, 30, 3), np.uint8)
        row, column = (np.clip(self.place + 0.5, 0, 1) * (19, 29)).astype(int)
        image[row, column] = 255
        image[0, 0] = self.steps
        return image

    def _observe(self) -> Any:
        state = np.concatenate([self.place, self.target])
        return {"arm": {"state": state}, "image": self.render()} if self.camera else state

    def _info(self) -> dict[str, Any]:
        reached = np.linalg.norm(self.place - self.target) < REACHED
        return {self.info_key: reached, "instruction": self.instruction}


class TwoCameras(PointEnv):
    """Point that a small camera watches, too, with images of another size."""

    def render_camera(self, name: str) -> Any:
        assert name == "near"
        return self.render()[:12, :16].copy()


class Policy:
    """Base class of the test policies; records the observations and noise it received."""

    chunk_length = 6
    history_length = 4

    def __init__(self, robot: Embodiment | None = None) -> None:
        self.embodiments = [point_robot(name="another"), robot or point_robot()]
        self.seen: list[Observation] = []
        self.noise: list[Tensor] = []

    def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        self.seen.append(observation)
        self.noise.append(noise_BHA)
        chunk_BHA = torch.zeros_like(noise_BHA)
        chunk_BHA[..., 7:9] = self.moves(observation, noise_BHA)
        return chunk_BHA

    def moves(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        raise NotImplementedError


class Solver(Policy):
    """Policy that walks straight to the target."""

    def moves(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        place, target = observation.state_BS[:, 8:10], observation.state_BS[:, 10:12]
        moves = []
        for _ in range(noise_BHA.shape[1]):
            moves.append((target - place).clamp(-STEP, STEP))
            place = place + moves[-1]
        return torch.stack(moves, dim=1)


class Wanderer(Policy):
    """Policy that walks in the direction of the flow noise, partly outside the action space."""

    def moves(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        return 0.08 * noise_BHA[..., 7:9]


gymnasium.register("test/Point-v0", PointEnv, max_episode_steps=40)
gymnasium.register("test/PointCamera-v0", PointEnv, max_episode_steps=40, kwargs={"camera": True})
gymnasium.register(
    "test/PointTwoCameras-v0", TwoCameras, max_episode_steps=40, kwargs={"camera": True}
)

VECTOR = ObservationMap(state="")
CAMERA = ObservationMap(state="arm/state", images={"top": "image"})


def roll(policy: Policy, env_id: str = "test/Point-v0", **changes: Any) -> RolloutResult:
    arguments: dict[str, Any] = {
        "episodes": 7,
        "observation_map": VECTOR,
        "embodiment": "point",
        "seed": 50,
        "num_envs": 3,
        "execute_steps": 5,
    }
    return rollout(policy, env_id, **(arguments | changes))
