"""Lightning callbacks that recipes name and a user may imitate: evaluation, memory and speed.

Recipes name them ``callbacks.RolloutEvaluation``; each is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callbacks.layers import CheckpointActivations, CompileLayers
    from callbacks.rollout import RolloutEvaluation

__all__ = ["CheckpointActivations", "CompileLayers", "RolloutEvaluation"]

_HOME = {
    "CheckpointActivations": "layers",
    "CompileLayers": "layers",
    "RolloutEvaluation": "rollout",
}


def __getattr__(name: str) -> type:
    if name not in _HOME:
        raise AttributeError(f"module 'callbacks' has no attribute {name!r}")
    found: type = getattr(import_module(f"callbacks.{_HOME[name]}"), name)
    return found
