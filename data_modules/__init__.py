"""Data modules: Stage 1 trajectories, Stage 2 images with language, and simulated ones.

Recipes name them ``data_modules.LeRobotTrajectories``; each is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_modules.augmentation import CropColourBlur
    from data_modules.lerobot_columns import LeRobotEmbodiment
    from data_modules.simulated import SimulatedSuite, SimulatedTrajectories, SimulatedVLA
    from data_modules.trajectories import LeRobotTrajectories
    from data_modules.vla import LeRobotVLA

__all__ = [
    "CropColourBlur",
    "LeRobotEmbodiment",
    "LeRobotTrajectories",
    "LeRobotVLA",
    "SimulatedSuite",
    "SimulatedTrajectories",
    "SimulatedVLA",
]

_HOME = {
    "CropColourBlur": "augmentation",
    "LeRobotEmbodiment": "lerobot_columns",
    "LeRobotTrajectories": "trajectories",
    "LeRobotVLA": "vla",
    "SimulatedSuite": "simulated",
    "SimulatedTrajectories": "simulated",
    "SimulatedVLA": "simulated",
}


def __getattr__(name: str) -> type:
    if name not in _HOME:
        raise AttributeError(f"module 'data_modules' has no attribute {name!r}")
    found: type = getattr(import_module(f"data_modules.{_HOME[name]}"), name)
    return found
