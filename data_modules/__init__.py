"""Data modules: Stage 1 trajectories, Stage 2 images with language, and simulated ones.

Recipes name them by class path, such as ``data_modules.LeRobotTrajectories``. Each loads on first
use.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = [
    "CropColourBlur",
    "FeatureSettings",
    "ImageSettings",
    "LeRobotEmbodiment",
    "LeRobotTrajectories",
    "LeRobotVLA",
    "RobotMixture",
    "SimulatedSuite",
    "SimulatedTrajectories",
    "SimulatedVLA",
]

if TYPE_CHECKING:
    from data_modules.images.augmentation import CropColourBlur
    from data_modules.images.features import FeatureSettings
    from data_modules.lerobot.columns import LeRobotEmbodiment
    from data_modules.simulated import SimulatedSuite, SimulatedTrajectories, SimulatedVLA
    from data_modules.trajectories import LeRobotTrajectories, RobotMixture
    from data_modules.vla import ImageSettings, LeRobotVLA
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "CropColourBlur": "images.augmentation",
            "FeatureSettings": "images.features",
            "ImageSettings": "vla",
            "LeRobotEmbodiment": "lerobot.columns",
            "LeRobotTrajectories": "trajectories",
            "LeRobotVLA": "vla",
            "RobotMixture": "trajectories",
            "SimulatedSuite": "simulated",
            "SimulatedTrajectories": "simulated",
            "SimulatedVLA": "simulated",
        },
    )
