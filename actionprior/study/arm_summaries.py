"""Results of each arm at each budget: rows of the report's tables and figures."""

from typing import NamedTuple

import numpy as np

from actionprior.study import statistics
from actionprior.study.results import Budget, Results
from actionprior.study.results import seconds_of as seconds_of_rows
from actionprior.study.statistics import Estimate
from actionprior.study.table import PairedOutcomes, ResultRow, paired


class ArmSummary(NamedTuple):
    """Results of an arm at a budget; shares are 0 to 1."""

    arm: str
    budget: Budget
    success: Estimate
    interquartile_mean: Estimate  # over seeds and tasks
    difference: Estimate | None  # from the reference's success, paired; None for the reference
    improvement: Estimate | None  # probability of improvement over the reference
    seeds: int
    rollouts: int


def summaries(results: Results) -> list[ArmSummary]:
    """Summarise all arms at all budgets with rollouts, in the study's order of arms."""
    found = []
    for arm in results.study.arms:
        for budget in results.budgets(arm):
            pair = paired([results.final(arm, budget)])
            if pair is not None:
                found.append(_summary(results, arm, budget, pair))
    return sorted(found, key=lambda s: (-s.budget.steps, -s.budget.demonstrations))


def as_json(summary: ArmSummary) -> dict[str, object]:
    """Convert a summary to plain data for JSON."""
    flat = summary._asdict() | summary.budget._asdict()
    del flat["budget"]
    return {k: v._asdict() if isinstance(v, Estimate) else v for k, v in flat.items()}


def summary_at(results: Results, arm: str, budget: Budget) -> ArmSummary | None:
    """Summarise an arm at a budget; None if it has no rollouts there."""
    pair = paired([results.final(arm, budget)])
    return None if pair is None else _summary(results, arm, budget, pair)


def most_compared_budget(results: Results) -> Budget | None:
    """Find the budget at which most arms can be compared."""
    count: dict[Budget, int] = {}
    for arm in results.study.arms:
        for budget in results.budgets(arm):
            count[budget] = count.get(budget, 0) + 1
    return max(count, key=lambda b: (count[b], b.steps, b.demonstrations), default=None)


def success_of(rows: list[ResultRow]) -> Estimate | None:
    """Estimate the mean success of rollout rows; None if no seed has all tasks."""
    pair = paired([rows]) if rows else None
    return None if pair is None else statistics.success(pair.outcome_STN[0])


def seconds_of(results: Results, arm: str, budget: Budget) -> tuple[float, float]:
    """Average training seconds of Stage 1 and of Stage 2 over seeds; NaN if unknown."""
    by_seed: dict[int, list[ResultRow]] = {}
    for row in results.ends(arm, budget):
        by_seed.setdefault(row.seed, []).append(row)
    known = [seconds_of_rows(rows) for rows in by_seed.values()]
    if not known:
        return float("nan"), float("nan")
    one, two = np.mean(known, axis=0).tolist()
    return one, two


def _summary(results: Results, arm: str, budget: Budget, own: PairedOutcomes) -> ArmSummary:
    reference, difference, improvement = results.study.reference, None, None
    if arm != reference:
        pair = paired([results.final(arm, budget), results.final(reference, budget)])
        if pair is not None:
            one_STN, other_STN = pair.outcome_STN
            difference = statistics.success_difference(one_STN, other_STN)
            improvement = statistics.improvement(one_STN, other_STN)
    (outcome_STN,) = own.outcome_STN
    iqm = statistics.success(outcome_STN, statistics.interquartile_means)
    return ArmSummary(
        arm,
        budget,
        statistics.success(outcome_STN),
        iqm,
        difference,
        improvement,
        len(own.seeds),
        own.rollouts,
    )
