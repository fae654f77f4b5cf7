"""Robot for lerobot-rollout that reaches each command exactly and logs it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

JOINTS = ["shoulder.pos", "elbow.pos"]
GRIPPER = ["gripper.pos"]
START = [0.1, -0.2, 0.5]


def toy_arm() -> Embodiment:
    return Embodiment(
        name="toy_arm",
        control_hz=20,
        action=[
            ActionGroup("arm", "joints", JOINTS, "joint_position", "rad", relative_to="arm"),
            ActionGroup("gripper", "joints", GRIPPER, "gripper", "", 7),
        ],
        state=[
            StateGroup("arm", "joints", JOINTS, "position", "rad"),
            StateGroup("gripper", "joints", GRIPPER, "gripper", "", 7),
        ],
        cameras=["observation.images.front"],
    )


def picture(step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 255, (24, 32, 3), dtype=np.uint8)


@RobotConfig.register_subclass("toy_arm")
@dataclass
class ToyArmConfig(RobotConfig):
    log: str = "actions.jsonl"


class ToyArm(Robot):
    config_class = ToyArmConfig
    name = "toy_arm"

    def __init__(self, config: ToyArmConfig) -> None:
        super().__init__(config)
        self.log = Path(config.log)
        self.place = dict(zip([*JOINTS, *GRIPPER], START, strict=True))
        self.steps = 0
        self.connected = False

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return {name: float for name in self.place} | {"front": (24, 32, 3)}

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return {name: float for name in self.place}

    @property
    def is_connected(self) -> bool:
        return self.connected

    is_calibrated = is_connected

    def connect(self, calibrate: bool = True) -> None:
        self.connected = True

    def disconnect(self) -> None:
        self.connected = False

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        return {**self.place, "front": picture(self.steps)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.place = {name: float(action[name]) for name in self.place}
        self.steps += 1
        with self.log.open("a") as file:
            file.write(json.dumps(list(self.place.values())) + "\n")
        return action
