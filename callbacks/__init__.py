"""Lightning callbacks that recipes name and a user may imitate: evaluation, memory and speed.

Recipes name them ``callbacks.RolloutEvaluation``; each is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = ["CheckpointActivations", "CompileLayers", "RolloutEvaluation"]

if TYPE_CHECKING:
    from callbacks.layers import CheckpointActivations, CompileLayers
    from callbacks.rollout import RolloutEvaluation
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "CheckpointActivations": "layers",
            "CompileLayers": "layers",
            "RolloutEvaluation": "rollout",
        },
    )
