"""Results of rollouts: per episode, and per environment with a confidence interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.feature_groups import split_groups
from actionprior.embodiment.guard import KINDS

Frame = npt.NDArray[np.uint8]


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Compute Wilson's score interval of a success rate (Wilson, JASA 22, 1927).

    With rate p and normal quantile z: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Raises:
        ValueError: ``n`` is below 1, or ``successes`` is not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"found {successes} successes of {n} episodes; expected 0 to n, n above 0")
    p = successes / n
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def jerk(action_TA: FloatArray, embodiment: Embodiment) -> float:
    """Measure the roughness of motion: the mean of |p_{t+3} - 3 p_{t+2} + 3 p_{t+1} - p_t|.

    p_t are the commanded positions: the actions of position groups, the running sums of delta
    groups, and rotation vectors from the first orientation of rotation groups. Grippers are
    excluded. The mean is over t and all these features, in their units (rad, m) per step³. It
    includes the transitions between chunks. Multiply by ``control_hz``³ for units per second³.

    Args:
        action_TA: Executed actions (T, n_a) in ``embodiment.action_features`` order.
        embodiment: Robot that executed them.

    Returns:
        The jerk, or NaN if T < 4 or the robot has only grippers.
    """
    groups = split_groups(action_TA, embodiment.action)
    paths = [
        representation.smooth_path(values.astype(np.float64))
        for representation, (_, values) in zip(
            embodiment.action_representations, groups, strict=True
        )
    ]
    positions = [path for path in paths if path is not None]
    if len(action_TA) < 4 or not positions:
        return math.nan
    return float(np.abs(np.diff(np.concatenate(positions, axis=1), n=3, axis=0)).mean())


@dataclass
class EpisodeResult:
    """Result of one episode.

    Attributes:
        seed: Reset seed of the environment.
        instruction: Task in words.
        success: True if the environment's info reported success at the last step.
        episode_return: Sum of rewards.
        length: Number of steps.
        jerk: Roughness of the motion (see ``jerk``), NaN for episodes of fewer than four steps.
        clipped_share: Share of commanded action entries outside of the action space's bounds.
        latencies_s: Wall time of each planning call [s], which may serve several episodes.
        state_Ts: States (length, n_s) from which the actions were executed, in the robot's order.
        frames: Images (Y, X, 3) of the reset and of every step, only for filmed episodes.
        guard_counts: Counts of what training never saw, see ``actionprior.embodiment.guard.Guard``.
            None if nothing was compared.
    """

    seed: int
    instruction: str
    success: bool
    episode_return: float
    length: int
    jerk: float
    clipped_share: float
    latencies_s: list[float]
    state_Ts: FloatArray = field(repr=False, compare=False)
    frames: list[Frame] = field(default_factory=list, repr=False)
    guard_counts: dict[str, int] | None = None


@dataclass
class RolloutResult:
    """All episodes of one environment, in the order of their seeds."""

    env_id: str
    episodes: list[EpisodeResult]

    @property
    def successes(self) -> int:
        """Number of episodes that succeeded."""
        return sum(episode.success for episode in self.episodes)

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeeded."""
        return self.successes / len(self.episodes)

    @property
    def success_interval(self) -> Interval:
        """95 % Wilson interval of the success rate."""
        return wilson_interval(self.successes, len(self.episodes))

    @property
    def mean_return(self) -> float:
        """Mean sum of rewards."""
        return float(np.mean([e.episode_return for e in self.episodes]))

    @property
    def mean_length(self) -> float:
        """Mean number of steps."""
        return float(np.mean([e.length for e in self.episodes]))

    @property
    def mean_jerk(self) -> float:
        """Mean jerk of the episodes in which it is defined, or NaN."""
        known = [e.jerk for e in self.episodes if not math.isnan(e.jerk)]
        return float(np.mean(known)) if known else math.nan

    @property
    def median_latency_s(self) -> float:
        """Median wall time of a planning call [s]."""
        return float(np.median([s for e in self.episodes for s in e.latencies_s]))

    @property
    def clipped_share(self) -> float:
        """Share of commanded action entries outside of the bounds, weighted by episode length."""
        lengths = [e.length for e in self.episodes]
        return float(np.average([e.clipped_share for e in self.episodes], weights=lengths))

    @property
    def guard_counts(self) -> dict[str, int]:
        """Sums of the episodes' ``guard_counts``; empty if nothing was compared."""
        known = [e.guard_counts for e in self.episodes if e.guard_counts is not None]
        return {kind: sum(counts[kind] for counts in known) for kind in KINDS} if known else {}

    def metrics(self) -> dict[str, float]:
        """Return the metrics that are logged per environment. Latency is in milliseconds."""
        interval = self.success_interval
        guarded = {f"guard_{kind}": float(count) for kind, count in self.guard_counts.items()}
        return guarded | {
            "success_rate": self.success_rate,
            "success_low": interval.low,
            "success_high": interval.high,
            "return": self.mean_return,
            "episode_length": self.mean_length,
            "jerk": self.mean_jerk,
            "latency_ms": 1e3 * self.median_latency_s,
            "clipped_share": self.clipped_share,
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for a JSON file, without frames. An undefined jerk is None."""
        episodes = [
            {
                "seed": e.seed,
                "instruction": e.instruction,
                "success": e.success,
                "return": e.episode_return,
                "length": e.length,
                "jerk": _finite(e.jerk),
                "clipped_share": e.clipped_share,
                "guard_counts": e.guard_counts,
                "latency_ms": 1e3 * float(np.median(e.latencies_s)),
            }
            for e in self.episodes
        ]
        summary = {key: _finite(value) for key, value in self.metrics().items()}
        return {"env_id": self.env_id, **summary, "episodes": episodes}


class GroupRate(NamedTuple):
    """Success in a group of environments, such as the tasks of one difficulty.

    Attributes:
        name: Name of the group.
        success_rate: Mean of its environments' success rates.
        played: Number of its environments that were played.
        size: Number of its environments.
    """

    name: str
    success_rate: float
    played: int
    size: int


def group_rates(
    results: Sequence[RolloutResult], groups: Mapping[str, Sequence[str]]
) -> list[GroupRate]:
    """Compute the success rate of each group of which an environment was played.

    Args:
        results: Results of the environments.
        groups: Environment ids of each group.
    """
    rates: list[GroupRate] = []
    for name, env_ids in groups.items():
        mine = [result.success_rate for result in results if result.env_id in env_ids]
        if mine:
            rates.append(GroupRate(name, sum(mine) / len(mine), len(mine), len(env_ids)))
    return rates


def mean_of_groups(rates: Sequence[GroupRate]) -> float:
    """Return the mean of the groups' success rates, in which a small group counts as a large one.

    Args:
        rates: At least one group.
    """
    return sum(rate.success_rate for rate in rates) / len(rates)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
