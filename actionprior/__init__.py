"""Learn to move from trajectories alone, then learn to see and act on top of it.

The names below load on first use, so that ``import actionprior`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["ActionGroup", "Embodiment", "MotionPriorModule", "Policy", "StateGroup", "VLAModule"]

if TYPE_CHECKING:
    from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
    from actionprior.motion_prior import MotionPriorModule
    from actionprior.policy import Policy
    from actionprior.vla import VLAModule
else:
    _HOMES = {
        "ActionGroup": "embodiment",
        "Embodiment": "embodiment",
        "MotionPriorModule": "motion_prior",
        "Policy": "policy",
        "StateGroup": "embodiment",
        "VLAModule": "vla",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
