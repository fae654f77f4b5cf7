"""Estimates with intervals from few seeds.

The ideas are those of rliable (Agarwal, Schwarzer, Castro, Courville, Bellemare, "Deep
reinforcement learning at the edge of the statistical precipice", NeurIPS 2021): stratified
bootstrap intervals, the interquartile mean, the probability of improvement. Seeds are resampled
as a whole, since one policy plays all tasks; tasks are fixed strata.

Axes: S seeds, T tasks, N rollouts (scenes) a task, R resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value and the bounds of its 95 % interval, all in the unit of what was estimated."""

    value: float
    low: float
    high: float


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Mean of what is left when the lowest and the highest quarter (rounded down) are cut.

    Args:
        values: any shape; all entries count alike.

    Raises:
        ValueError: there are none.
    """
    flat = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if len(flat) == 0:
        raise ValueError("the interquartile mean of no values is not defined")
    cut = len(flat) // 4
    return float(flat[cut : len(flat) - cut].mean())


def probability_of_improvement(x_ST: npt.ArrayLike, y_ST: npt.ArrayLike) -> float:
    """Mean over tasks of P(X > Y) + P(X = Y) / 2 for a run of each (Mann and Whitney's U).

    Args:
        x_ST: scores (S, T).
        y_ST: scores (S′, T) of what X is compared with.

    Raises:
        ValueError: not two-dimensional, no seeds, or different numbers of tasks.
    """
    x, y = (np.asarray(a, dtype=np.float64) for a in (x_ST, y_ST))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not x.size or not y.size:
        raise ValueError(
            f"scores are {x.shape} and {y.shape}, expected (seeds, tasks), tasks alike"
        )
    pairs = x[:, None] - y[None]
    return float((np.sign(pairs) / 2 + 0.5).mean())


def success(
    outcome_STN: npt.ArrayLike,
    statistic: Callable[[Array], float] = np.mean,
    seed: int = 0,
) -> Estimate:
    """A statistic of success rates (S, T), with a two-level bootstrap interval.

    A resample draws S seeds, then N rollouts in each of their tasks. Where seeds do not differ
    the interval is wider than it need be, by a factor of up to √2; of a single seed it holds the
    noise of the rollouts alone.

    Args:
        outcome_STN: 0 or 1 (S, T, N).
        statistic: of rates (S, T), for instance ``interquartile_mean``.
        seed: of the resampling.

    Raises:
        ValueError: not three-dimensional, or empty.
    """
    outcome_STN = _outcomes(outcome_STN)
    rate_ST, count = outcome_STN.mean(2), outcome_STN.shape[2]
    rng = np.random.default_rng(seed)
    drawn_RS = rng.integers(len(rate_ST), size=(RESAMPLES, len(rate_ST)))
    # N draws with replacement from N zeros and ones are one binomial draw.
    rate_RST = rng.binomial(count, rate_ST[drawn_RS]) / count
    return _estimate(statistic(rate_ST), np.array([statistic(r) for r in rate_RST]))


def success_difference(one_STN: npt.ArrayLike, other_STN: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Mean success of one arm less that of another, paired by seed and by scene.

    A resample draws seeds, and of each task's scenes, which all seeds share; both arms get the
    same ones (the crossed bootstrap of Owen, Annals of Applied Statistics 1, 2007: never too
    narrow by more than seeds are few).

    Args:
        one_STN: 0 or 1 (S, T, N).
        other_STN: the same shape; row, column and layer are the same seed, task and scene.
        seed: of the resampling.

    Raises:
        ValueError: shapes differ, or are not three-dimensional, or empty.
    """
    one, other = _outcomes(one_STN), _outcomes(other_STN)
    if one.shape != other.shape:
        raise ValueError(f"outcomes are {one.shape} and {other.shape}; pairs need equal shapes")
    difference_STN = one - other
    return _estimate(difference_STN.mean(), _crossed(difference_STN, seed).mean(1))


def difference_of_differences(
    gain_STN: npt.ArrayLike, other_gain_STN: npt.ArrayLike, seed: int = 0
) -> Estimate:
    """How much more one paired difference is than another; both (S, T, N), entries -1, 0, 1."""
    difference_STN = np.asarray(gain_STN, np.float64) - np.asarray(other_gain_STN, np.float64)
    return _estimate(difference_STN.mean(), _crossed(difference_STN, seed).mean(1))


def improvement(one_STN: npt.ArrayLike, other_STN: npt.ArrayLike, seed: int = 0) -> Estimate:
    """The probability of improvement of one arm's rates, with a two-level bootstrap interval.

    Args:
        one_STN: 0 or 1 (S, T, N).
        other_STN: 0 or 1 (S′, T, N′).
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    rates, drawn = [], []
    for outcome_STN in (_outcomes(one_STN), _outcomes(other_STN)):
        rate_ST, count = outcome_STN.mean(2), outcome_STN.shape[2]
        seeds_RS = rng.integers(len(rate_ST), size=(RESAMPLES, len(rate_ST)))
        rates.append(rate_ST)
        drawn.append(rng.binomial(count, rate_ST[seeds_RS]) / count)
    resampled = [probability_of_improvement(x, y) for x, y in zip(*drawn, strict=True)]
    return _estimate(probability_of_improvement(*rates), np.array(resampled))


def mean(value_S: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Mean over seeds with its bootstrap interval; a point for a single seed.

    Raises:
        ValueError: not one-dimensional, or empty.
    """
    value_S = np.asarray(value_S, dtype=np.float64)
    if value_S.ndim != 1 or not len(value_S):
        raise ValueError(f"values have shape {value_S.shape}, expected (seeds,), at least one")
    drawn_RS = np.random.default_rng(seed).integers(len(value_S), size=(RESAMPLES, len(value_S)))
    return _estimate(value_S.mean(), value_S[drawn_RS].mean(1))


def ratio(top_S: npt.ArrayLike, bottom_S: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Geometric mean over seeds of top / bottom, paired by seed.

    Raises:
        ValueError: shapes differ, or a value is not above 0.
    """
    top, bottom = (np.asarray(a, dtype=np.float64) for a in (top_S, bottom_S))
    if top.shape != bottom.shape or not (top > 0).all() or not (bottom > 0).all():
        raise ValueError("a paired ratio needs two equally long lists of values above 0")
    return Estimate(*np.exp(mean(np.log(top / bottom), seed)).tolist())


def _outcomes(outcome_STN: npt.ArrayLike) -> Array:
    outcome = np.asarray(outcome_STN, dtype=np.float64)
    if outcome.ndim != 3 or not outcome.size:
        raise ValueError(f"outcomes are {outcome.shape}, expected (seeds, tasks, rollouts)")
    return outcome


def _crossed(value_STN: Array, seed: int) -> Array:
    """(R, T): means over seeds and scenes, both resampled."""
    seeds, tasks, scenes = value_STN.shape
    rng = np.random.default_rng(seed)
    seed_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    result_RT = np.empty((RESAMPLES, tasks))
    for t in range(tasks):
        scene_RN = rng.multinomial(scenes, np.full(scenes, 1 / scenes), RESAMPLES) / scenes
        result_RT[:, t] = ((seed_RS @ value_STN[:, t]) * scene_RN).sum(1)
    return result_RT


def _estimate(value: float | np.floating, resampled_R: Array) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled_R, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))
