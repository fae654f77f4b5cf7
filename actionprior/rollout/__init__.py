"""Roll out a chunk policy in any Gymnasium environment, without Lightning."""

from actionprior.chunk_planner import ChunkPolicy
from actionprior.rollout.compatibility import RENDER, ObservationMap, RolloutError
from actionprior.rollout.results import (
    EpisodeResult,
    GroupRate,
    RolloutResult,
    group_rates,
    jerk,
    mean_of_groups,
    wilson_interval,
)
from actionprior.rollout.run import DEFAULT_SEED, rollout

__all__ = [
    "DEFAULT_SEED",
    "RENDER",
    "ChunkPolicy",
    "EpisodeResult",
    "GroupRate",
    "ObservationMap",
    "RolloutError",
    "RolloutResult",
    "group_rates",
    "jerk",
    "mean_of_groups",
    "rollout",
    "wilson_interval",
]
