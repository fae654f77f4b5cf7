"""Laws of the estimates, and their coverage where the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprior.study import statistics

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def outcomes(seed: int, rate_ST: np.ndarray, rollouts: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((*rate_ST.shape, rollouts)) < rate_ST[..., None]).astype(float)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([0, 1, 2, 30], 1.5), ([[5, 1], [2, 2], [9, 0], [2, 2]], 2.0), ([1, 2, 6], 3.0)],
)
def test_the_interquartile_mean_of_known_arrays(values: list, expected: float) -> None:
    assert statistics.interquartile_mean(values) == expected


@given(SCORES)
def test_the_interquartile_mean_stays_inside_and_ignores_an_outlier(values: list[float]) -> None:
    found = statistics.interquartile_mean(values)
    assert min(values) - 1e-12 <= found <= max(values) + 1e-12
    if len(values) >= 4:
        wild = sorted(values)
        wild[-1] = 1e9
        assert statistics.interquartile_mean(wild) == pytest.approx(found)


@given(SCORES, SCORES)
def test_improvement_is_half_for_equals_and_turns_over(x: list[float], y: list[float]) -> None:
    x_S1, y_S1 = np.array(x)[:, None], np.array(y)[:, None]
    forth = statistics.probability_of_improvement(x_S1, y_S1)
    assert forth + statistics.probability_of_improvement(y_S1, x_S1) == pytest.approx(1)
    assert statistics.probability_of_improvement(x_S1, x_S1) == pytest.approx(0.5)
    assert statistics.probability_of_improvement(x_S1 + 2, x_S1) == 1


def test_intervals_hold_their_value_and_agreement_is_not_certainty() -> None:
    certain = np.ones((3, 2, 10))
    reach = 1.96**2 / (60 + 1.96**2)  # of 60 equal outcomes, by Wilson
    assert statistics.success(certain) == pytest.approx((1, 1 - reach, 1), abs=1e-4)
    assert statistics.success(1 - certain) == pytest.approx((0, 0, reach), abs=1e-4)
    halves = np.broadcast_to(np.array([0.0, 1.0])[:, None], (3, 2, 10))
    of_a_task = 1.96**2 / (30 + 1.96**2)  # no task differs from itself
    wide = pytest.approx((0.5, 0.5 - of_a_task, 0.5 + of_a_task), abs=1e-4)
    assert statistics.success(halves) == wide
    seldom = np.zeros((3, 4, 30))
    seldom[0, 0, :2] = 1
    iqm = statistics.success(seldom, statistics.interquartile_means)
    assert iqm == pytest.approx((0, 0, 1.96**2 / (90 + 1.96**2)), abs=1e-4)
    none = statistics.success_difference(certain, certain)
    assert none == pytest.approx((0, -reach, reach), abs=1e-4)
    assert statistics.improvement(certain, certain) == (0.5, 0.5, 0.5)
    assert statistics.mean([2.0]) == (2, 2, 2)
    assert statistics.ratio([8, 2], [1, 1]).value == pytest.approx(4)
    found = statistics.success(outcomes(0, np.full((5, 4), 0.3), 50))
    assert found.low < found.value < found.high


def test_paired_differences_have_narrower_intervals() -> None:
    rng = np.random.default_rng(0)
    easy_STN = np.broadcast_to(rng.random((1, 2, 100)) < 0.5, (5, 2, 100)).astype(float)
    better_STN = np.maximum(easy_STN, rng.random((5, 2, 100)) < 0.1)
    paired = statistics.success_difference(better_STN, easy_STN)
    shuffled_STN = rng.permuted(easy_STN, axis=2)
    strangers = statistics.success_difference(better_STN, shuffled_STN)
    assert paired.low > 0
    assert paired.high - paired.low < strangers.high - strangers.low


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_cover_the_truth(spread: float) -> None:
    """Five seeds, whose policies differ by ``spread``; 95 % are asked for."""
    rng, hits, hits_of_difference, tries = np.random.default_rng(1), 0, 0, 100
    for k in range(tries):
        rates = [p + spread * rng.normal(size=(5, 1)) * np.ones(4) for p in (0.5, 0.35)]
        one, other = (outcomes(2 * k + i, np.clip(r, 0, 1), 50) for i, r in enumerate(rates))
        found = statistics.success(one, seed=k)
        hits += found.low <= 0.5 <= found.high
        found = statistics.success_difference(one, other, seed=k)
        hits_of_difference += found.low <= 0.15 <= found.high
    assert hits / tries > 0.88
    assert hits_of_difference / tries > 0.88


@pytest.mark.parametrize("wrong", [np.ones((2, 2)), np.ones((0, 1, 1)), np.ones((1, 1, 0))])
def test_what_has_no_seeds_tasks_or_rollouts_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        statistics.success(wrong)


def test_what_does_not_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        statistics.success_difference(np.ones((2, 1, 3)), np.ones((3, 1, 3)))
    with pytest.raises(ValueError, match="equal tasks"):
        statistics.probability_of_improvement(np.ones((2, 1)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="at least one"):
        statistics.mean([])
    with pytest.raises(ValueError, match="above 0"):
        statistics.ratio([1.0], [0.0])
    with pytest.raises(ValueError, match="not defined"):
        statistics.interquartile_mean([])
