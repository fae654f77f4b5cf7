"""Data modules: Stage 1 trajectories, Stage 2 images with language, and simulated ones.

Recipes name them ``data_modules.LeRobotTrajectories``; each is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = [
    "CropColourBlur",
    "LeRobotEmbodiment",
    "LeRobotTrajectories",
    "LeRobotVLA",
    "SimulatedSuite",
    "SimulatedTrajectories",
    "SimulatedVLA",
]

if TYPE_CHECKING:
    from data_modules.images.augmentation import CropColourBlur
    from data_modules.lerobot.columns import LeRobotEmbodiment
    from data_modules.simulated import SimulatedSuite, SimulatedTrajectories, SimulatedVLA
    from data_modules.trajectories import LeRobotTrajectories
    from data_modules.vla import LeRobotVLA
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "CropColourBlur": "images.augmentation",
            "LeRobotEmbodiment": "lerobot.columns",
            "LeRobotTrajectories": "trajectories",
            "LeRobotVLA": "vla",
            "SimulatedSuite": "simulated",
            "SimulatedTrajectories": "simulated",
            "SimulatedVLA": "simulated",
        },
    )
