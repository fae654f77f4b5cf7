"""Estimates with confidence intervals from few seeds.

They follow rliable (Agarwal, Schwarzer, Castro, Courville, Bellemare, "Deep reinforcement learning
at the edge of the statistical precipice", NeurIPS 2021): stratified bootstrap intervals, the
interquartile mean and the probability of improvement. Seeds are resampled as a unit, since one
policy plays all tasks; tasks are fixed strata.

Measured coverage of 95 % intervals, in 150 simulations of four tasks with 50 rollouts, when success
differs between seeds by 0, 4 and 8 points: for five seeds 99, 95 and 91 % (success) and 99, 96 and
95 % (paired difference); for three seeds 97, 93 and 87 % and 100, 97 and 87 %.

Axes: S seeds, T tasks, N rollouts (scenes) per task, R resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
Z = 1.959964  # the normal quantile of the confidence level


class Estimate(NamedTuple):
    """A value and the bounds of its 95 % interval, in the same unit."""

    value: float
    low: float
    high: float


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Return the mean without the lowest and the highest quarter (rounded down) of the values.

    Args:
        values: Values of any shape, all with the same weight.

    Raises:
        ValueError: There are no values.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(1, -1)
    if flat.size == 0:
        raise ValueError("the interquartile mean of no values is not defined")
    return float(interquartile_means(flat)[0])


def interquartile_means(value_RK: Array) -> Array:
    """Return the ``interquartile_mean`` of each row: (R, K) to (R,)."""
    cut = value_RK.shape[1] // 4
    inner_RK: Array = np.sort(value_RK, axis=1)[:, cut : value_RK.shape[1] - cut]
    return means(inner_RK)


def means(value_RK: Array) -> Array:
    """Return the mean of each row: (R, K) to (R,)."""
    mean_R: Array = value_RK.mean(1)
    return mean_R


def probability_of_improvement(x_ST: npt.ArrayLike, y_ST: npt.ArrayLike) -> float:
    """Return the mean over tasks of P(X > Y) + P(X = Y) / 2 for single runs (Mann-Whitney U).

    Args:
        x_ST: Scores (S, T).
        y_ST: Scores (S′, T) that X is compared with.

    Raises:
        ValueError: Scores are not two-dimensional, have no seeds, or differ in the number of tasks.
    """
    x, y = (np.asarray(a, dtype=np.float64) for a in (x_ST, y_ST))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not x.size or not y.size:
        raise ValueError(
            f"scores are {x.shape} and {y.shape}, expected (seeds, tasks), equal tasks"
        )
    return float(_improvements(x[None], y[None])[0])


def success(
    outcome_STN: npt.ArrayLike,
    statistic: Callable[[Array], Array] = means,
    seed: int = 0,
) -> Estimate:
    """Estimate a statistic of success rates (S, T), with a two-level bootstrap interval.

    A resample draws S seeds, then N rollouts in each of their tasks. If seeds do not differ, the
    interval is up to √2 times wider than necessary. For a single seed it covers only the noise of
    the rollouts. ``_no_variation`` handles equal resamples.

    Args:
        outcome_STN: Outcomes 0 or 1 (S, T, N).
        statistic: Statistic of the S·T rates of R resamples, (R, S·T) to (R,): ``means`` or
            ``interquartile_means``.
        seed: Seed of the resampling.

    Raises:
        ValueError: Outcomes are not three-dimensional, or empty.
    """
    outcome_STN = _outcomes(outcome_STN)
    rate_ST, count = outcome_STN.mean(2), outcome_STN.shape[2]
    rng = np.random.default_rng(seed)
    drawn_RS = rng.integers(len(rate_ST), size=(RESAMPLES, len(rate_ST)))
    # N draws with replacement from N zeros and ones are one binomial draw.
    rate_RST = rng.binomial(count, rate_ST[drawn_RS]) / count
    value = statistic(rate_ST.reshape(1, -1))[0]
    found = _estimate(value, statistic(rate_RST.reshape(RESAMPLES, -1)))
    return _no_variation(found, outcome_STN, 0.0)


def success_difference(one_STN: npt.ArrayLike, other_STN: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the difference of the mean success of two arms, paired by seed and scene.

    A resample draws seeds, and scenes of each task, which all seeds share. Both arms get the same
    seeds and scenes. This is the crossed bootstrap of Owen (Annals of Applied Statistics 1, 2007),
    which tends to overstate the noise.

    Args:
        one_STN: Outcomes 0 or 1 (S, T, N).
        other_STN: Outcomes of the other arm for the same seeds, tasks and scenes.
        seed: Seed of the resampling.

    Raises:
        ValueError: Shapes differ, or are not three-dimensional, or empty.
    """
    one, other = _outcomes(one_STN), _outcomes(other_STN)
    if one.shape != other.shape:
        raise ValueError(f"outcomes are {one.shape} and {other.shape}; pairs need equal shapes")
    difference_STN = one - other
    found = _estimate(difference_STN.mean(), _crossed(difference_STN, seed).mean(1))
    return _no_variation(found, difference_STN, -1.0)


def improvement(one_STN: npt.ArrayLike, other_STN: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the probability of improvement of one arm, with a two-level bootstrap interval.

    Args:
        one_STN: Outcomes 0 or 1 (S, T, N).
        other_STN: Outcomes 0 or 1 (S′, T, N′) of the other arm.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    rates, drawn = [], []
    for outcome_STN in (_outcomes(one_STN), _outcomes(other_STN)):
        rate_ST, count = outcome_STN.mean(2), outcome_STN.shape[2]
        seeds_RS = rng.integers(len(rate_ST), size=(RESAMPLES, len(rate_ST)))
        rates.append(rate_ST)
        drawn.append(rng.binomial(count, rate_ST[seeds_RS]) / count)
    return _estimate(probability_of_improvement(*rates), _improvements(*drawn))


def mean(value_S: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the mean over seeds with a bootstrap interval, which is a point for a single seed.

    Raises:
        ValueError: Values are not one-dimensional, or empty.
    """
    value_S = np.asarray(value_S, dtype=np.float64)
    if value_S.ndim != 1 or not len(value_S):
        raise ValueError(f"values have shape {value_S.shape}, expected (seeds,), at least one")
    drawn_RS = np.random.default_rng(seed).integers(len(value_S), size=(RESAMPLES, len(value_S)))
    return _estimate(value_S.mean(), value_S[drawn_RS].mean(1))


def ratio(top_S: npt.ArrayLike, bottom_S: npt.ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the geometric mean over seeds of top / bottom, paired by seed.

    Raises:
        ValueError: Shapes differ, or a value is not above 0.
    """
    top, bottom = (np.asarray(a, dtype=np.float64) for a in (top_S, bottom_S))
    if top.shape != bottom.shape or not (top > 0).all() or not (bottom > 0).all():
        raise ValueError("a paired ratio needs two equally long lists of values above 0")
    return Estimate(*np.exp(mean(np.log(top / bottom), seed)).tolist())


def _improvements(x_RST: Array, y_RST: Array) -> Array:
    wins_RSST = np.sign(x_RST[:, :, None] - y_RST[:, None]) / 2 + 0.5
    share_R: Array = wins_RSST.mean((1, 2, 3))
    return share_R


def _outcomes(outcome_STN: npt.ArrayLike) -> Array:
    outcome = np.asarray(outcome_STN, dtype=np.float64)
    if outcome.ndim != 3 or not outcome.size:
        raise ValueError(f"outcomes are {outcome.shape}, expected (seeds, tasks, rollouts)")
    return outcome


def _no_variation(found: Estimate, value_STN: Array, least: float) -> Estimate:
    """Replace an interval of width 0 by Wilson's z² / (n + z²) around the estimate.

    Resampling equal outcomes shows no uncertainty. n counts all outcomes, or those of one task if
    tasks differ while each task's outcomes are equal.

    Source: the bound for 0 successes of n (Wilson, JASA 22, 1927).
    """
    if found.low < found.high:
        return found
    seeds, _, scenes = value_STN.shape
    count = seeds * scenes if np.ptp(value_STN) > 0 else value_STN.size
    reach = Z**2 / (count + Z**2)
    return Estimate(found.value, max(least, found.value - reach), min(1.0, found.value + reach))


def _crossed(value_STN: Array, seed: int) -> Array:
    """Return means over seeds and scenes, both resampled, (R, T)."""
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
