"""Learn to move from trajectories, then learn to see and act on top of it.

The names below load on first use, so that ``import actionprior`` costs nothing.
"""

from typing import TYPE_CHECKING

from actionprior.files import user_modules
from actionprior.lazy import lazy_exports

user_modules.restore()  # in processes that a command starts

__version__ = "0.1.0"

__all__ = [
    "ActionGroup",
    "AsyncAtomicCheckpointIO",
    "Embodiment",
    "MotionPriorModule",
    "Policy",
    "ShardedStrategy",
    "StateGroup",
    "VLAModule",
]

if TYPE_CHECKING:
    from actionprior.checkpoints.atomic import AsyncAtomicCheckpointIO
    from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
    from actionprior.motion_prior import MotionPriorModule
    from actionprior.policy import Policy
    from actionprior.training.sharding import ShardedStrategy
    from actionprior.vla import VLAModule
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "ActionGroup": "embodiment",
            "AsyncAtomicCheckpointIO": "checkpoints.atomic",
            "Embodiment": "embodiment",
            "MotionPriorModule": "motion_prior",
            "Policy": "policy",
            "ShardedStrategy": "training.sharding",
            "StateGroup": "embodiment",
            "VLAModule": "vla",
        },
    )
