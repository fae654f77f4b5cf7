"""A six-joint arm with two cameras, for lerobot-rollout. It reaches each command."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

JOINTS = [*(f"joint_{n}.pos" for n in range(1, 7)), "gripper.pos"]
CAMERAS = {"front": (48, 64, 3), "wrist": (40, 40, 3)}


@RobotConfig.register_subclass("my_arm")
@dataclass
class MyArmConfig(RobotConfig):
    """Nothing to set."""


class MyArm(Robot):
    """The arm."""

    config_class = MyArmConfig
    name = "my_arm"

    def __init__(self, config: MyArmConfig) -> None:
        super().__init__(config)
        self.place = dict.fromkeys(JOINTS, 0.0)
        self.is_on = False

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return dict.fromkeys(JOINTS, float) | CAMERAS

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(JOINTS, float)

    @property
    def is_connected(self) -> bool:
        return self.is_on

    is_calibrated = is_connected

    def connect(self, calibrate: bool = True) -> None:
        self.is_on = True

    def disconnect(self) -> None:
        print(f"the arm moved to {list(self.place.values())}", flush=True)
        self.is_on = False

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        images = {name: np.full(shape, 100, np.uint8) for name, shape in CAMERAS.items()}
        return {**self.place, **images}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.place = {name: float(action[name]) for name in JOINTS}
        return action
