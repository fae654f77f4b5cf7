"""Lightning callbacks for recipes: checkpoints, evaluation in simulators, less memory, more speed.

Recipes name them as ``callbacks.RolloutEvaluation``. Each is imported on first use.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = [
    "BestCheckpoint",
    "CheckpointActivations",
    "CompileLayers",
    "RolloutEvaluation",
    "StepCheckpoint",
]

if TYPE_CHECKING:
    from callbacks.checkpoints import BestCheckpoint, StepCheckpoint
    from callbacks.layers import CheckpointActivations, CompileLayers
    from callbacks.rollout import RolloutEvaluation
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "BestCheckpoint": "checkpoints",
            "CheckpointActivations": "layers",
            "CompileLayers": "layers",
            "RolloutEvaluation": "rollout",
            "StepCheckpoint": "checkpoints",
        },
    )
