"""The environment of ``tests/helpers/point_env.py`` for lerobot-eval, with LeRobot's names."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig

from tests.helpers.point_env import PointEnv


class LeRobotPoint(PointEnv):
    """A point that must be moved to a target, with observations like gym-pusht's."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode, camera=True)
        self.task_description = self.task = self.instruction
        state = Box(-np.inf, np.inf, (4,), np.float64)
        pixels = Box(0, 255, (20, 30, 3), np.uint8)
        self.observation_space = Dict({"agent_pos": state, "pixels": pixels})

    def _observe(self) -> Any:
        observation = super()._observe()
        return {"agent_pos": observation["arm"]["state"], "pixels": observation["image"]}


ENV_ID = "gym_toy_point/Point-v0"
gymnasium.register(ENV_ID, LeRobotPoint, max_episode_steps=15)


@EnvConfig.register_subclass("toy_point")
@dataclass
class ToyPointConfig(EnvConfig):
    task: str | None = "Point-v0"
    fps: int = 10
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (2,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (4,)),
            "pixels": PolicyFeature(FeatureType.VISUAL, (20, 30, 3)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "pixels": "observation.image",
        }
    )

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"render_mode": "rgb_array"}
