"""Held-out errors and smoothness per feature group, in the robot's own units.

A study of a real robot without a simulator compares its arms by these.
"""

import math
from typing import NamedTuple

import numpy as np

from actionprior.study import statistics
from actionprior.study.results import Budget, Results
from actionprior.study.statistics import Estimate


class FeatureGroup(NamedTuple):
    """Feature group of a robot's action, such as its right arm."""

    robot: str
    name: str
    unit: str


class GroupError(NamedTuple):
    """Effect of the prior on a group's error at a budget, estimated over shared seeds."""

    group: FeatureGroup
    budget: Budget
    prior: Estimate  # error at the end, in the group's unit
    no_prior: Estimate
    ratio: Estimate | None  # prior / no prior, paired by seed; None if an error is 0 or NaN
    bend_prior: float  # mean absolute second difference along predicted chunks, in the unit
    bend_no_prior: float
    bend_recorded: float
    steps_to_match: Estimate  # until the prior's arm reaches the final error without prior
    never: int  # seeds that do not reach it; they count as the whole run
    seeds: int


def feature_groups(results: Results) -> list[FeatureGroup]:
    """List the feature groups that the table has errors of."""
    return sorted({FeatureGroup(r.robot, r.group, r.unit) for r in results.table if r.group})


def group_errors(results: Results) -> list[GroupError]:
    """Compare the arms in each group, at each budget that both were measured at."""
    found = [
        _compared(results, group, budget)
        for group in feature_groups(results)
        for budget in results.budgets("prior", "no_prior", rollouts=False)
    ]
    return [f for f in found if f is not None]


def along(
    results: Results, role: str, budget: Budget, group: FeatureGroup, column: str
) -> dict[int, dict[int, float]]:
    """Return seed → step → a column of the group's rows, averaged over the study's parts."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in results.rows(role, budget):
        if (row.robot, row.group, row.unit) == group:
            found.setdefault((row.seed, row.step), []).append(getattr(row, column))
    result: dict[int, dict[int, float]] = {}
    for (seed, step), values in sorted(found.items()):
        result.setdefault(seed, {})[step] = float(np.mean(values))
    return result


def at_end(
    results: Results, role: str, budget: Budget, group: FeatureGroup, column: str
) -> dict[int, float]:
    """Return seed → a column at the run's last validation."""
    found = along(results, role, budget, group, column)
    return {seed: values[max(values)] for seed, values in found.items()}


def as_json(found: GroupError) -> dict[str, object]:
    """Convert a comparison to plain data for JSON."""
    flat = found.group._asdict() | found.budget._asdict() | found._asdict()
    flat["group"] = found.group.name
    del flat["budget"], flat["name"]
    return {k: v._asdict() if isinstance(v, Estimate) else v for k, v in flat.items()}


def _compared(results: Results, group: FeatureGroup, budget: Budget) -> GroupError | None:
    with_prior, without = (
        at_end(results, role, budget, group, "mae") for role in ("prior", "no_prior")
    )
    seeds = sorted(with_prior.keys() & without.keys())
    if not seeds:
        return None
    one, other = [with_prior[s] for s in seeds], [without[s] for s in seeds]
    errors = along(results, "prior", budget, group, "mae")
    needed = [_first(errors[s], without[s]) for s in seeds]

    def bend(role: str, column: str) -> float:
        by_seed = at_end(results, role, budget, group, column)
        return float(np.mean([by_seed[s] for s in seeds]))

    return GroupError(
        group,
        budget,
        statistics.mean(one),
        statistics.mean(other),
        statistics.ratio(one, other) if all(0 < e < math.inf for e in one + other) else None,
        bend("prior", "bend"),
        bend("no_prior", "bend"),
        bend("no_prior", "bend_recorded"),
        statistics.mean([min(step, budget.steps) for step in needed]),
        sum(map(math.isinf, needed)),
        len(seeds),
    )


def _first(errors: dict[int, float], wanted: float) -> float:
    """Return the first step whose error is at most ``wanted``; infinite if there is none."""
    return min((step for step, error in errors.items() if error <= wanted), default=math.inf)
