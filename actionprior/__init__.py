"""Learn to move from trajectories alone, then learn to see and act on top of it.

The names below load on first use, so that ``import actionprior`` costs nothing.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__version__ = "0.1.0"

__all__ = ["ActionGroup", "Embodiment", "MotionPriorModule", "Policy", "StateGroup", "VLAModule"]

if TYPE_CHECKING:
    from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
    from actionprior.motion_prior import MotionPriorModule
    from actionprior.policy import Policy
    from actionprior.vla import VLAModule
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "ActionGroup": "embodiment",
            "Embodiment": "embodiment",
            "MotionPriorModule": "motion_prior",
            "Policy": "policy",
            "StateGroup": "embodiment",
            "VLAModule": "vla",
        },
    )
