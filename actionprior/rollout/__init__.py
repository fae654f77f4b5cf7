"""Roll out a chunk policy in any Gymnasium environment, without Lightning."""

from actionprior.chunk_planner import ChunkPolicy
from actionprior.rollout.compatibility import RENDER, ObservationMap, RolloutError
from actionprior.rollout.results import EpisodeResult, RolloutResult, jerk, wilson_interval
from actionprior.rollout.run import DEFAULT_SEED, rollout

__all__ = [
    "DEFAULT_SEED",
    "RENDER",
    "ChunkPolicy",
    "EpisodeResult",
    "ObservationMap",
    "RolloutError",
    "RolloutResult",
    "jerk",
    "rollout",
    "wilson_interval",
]
