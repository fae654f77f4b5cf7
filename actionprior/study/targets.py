"""Targets of a study, each computed from the results table.

A target is met if the estimate meets it; the interval shows its uncertainty. "No gain" is met if
the interval of the paired difference does not lie above zero.

Axes: S seeds, T tasks, N scenes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from actionprior.study import statistics
from actionprior.study.plan import Study
from actionprior.study.results import Budget, Results, SuccessCurve
from actionprior.study.statistics import Estimate
from actionprior.study.table import PairedOutcomes, Table, by_seed, paired


class TargetResult(NamedTuple):
    """A target and its result; ``value`` is None if cells are missing."""

    key: str
    quantity: str
    target: str
    paper: str  # value in the paper; "" if it reports none
    unit: str  # "×", "points", "%", "demonstrations"
    value: float | None
    low: float | None
    high: float | None
    seeds: int
    rollouts: int  # of all arms
    met: bool | None  # None: not measured
    note: str  # the budget, or the reason why it was not measured


class MeasuredTarget(NamedTuple):
    """Result of a function that measures a target."""

    estimate: Estimate
    seeds: int
    rollouts: int
    met: bool
    note: str


class MissingCells(Exception):
    """Cells that a target needs are not finished, or not part of the study."""


Measure = Callable[[Results], MeasuredTarget]


def measure_targets(study: Study, rows: Table) -> list[TargetResult]:
    """Measure all targets, or without rollouts those that need none."""
    results = Results(study, rows)
    found = []
    for key, quantity, target, paper, unit, measure in TARGETS:
        if key not in OPEN_LOOP and not results.has_rollouts:
            continue
        try:
            f = measure(results)
        except MissingCells as missing:
            nothing = (None, None, None, 0, 0, None, f"not measured: {missing}")
            found.append(TargetResult(key, quantity, target, paper, unit, *nothing))
        else:
            measured = (*f.estimate, f.seeds, f.rollouts, f.met, f.note)
            found.append(TargetResult(key, quantity, target, paper, unit, *measured))
    return found


# ---- initial loss, gradient, and speed ---------------------------------------------------------


def _initial(column: str, wanted: float) -> Measure:
    def measure(results: Results) -> MeasuredTarget:
        budget = _budget(results, "no_prior", "prior", rollouts=False)
        without, with_prior = (
            by_seed(results.rows(role, budget), column) for role in ("no_prior", "prior")
        )
        seeds = _shared(without, with_prior)
        estimate = statistics.ratio([without[s] for s in seeds], [with_prior[s] for s in seeds])
        return MeasuredTarget(estimate, len(seeds), 0, estimate.value >= wanted, str(budget))

    return measure


def _steps_to_error(results: Results) -> MeasuredTarget:
    budget = _budget(results, "no_prior", "prior", rollouts=False)
    without, with_prior = (results.errors(role, budget) for role in ("no_prior", "prior"))
    seeds, slow, fast, never, at_once = _shared(without, with_prior), [], [], 0, 0
    for seed in seeds:
        at = min(without[seed], key=lambda step: abs(step - 0.3 * budget.steps))
        wanted = without[seed][at]
        reached = [step for step, error in with_prior[seed].items() if error <= wanted]
        never += not reached
        at_once += reached[:1] == [min(with_prior[seed])]
        slow.append(float(at))
        fast.append(float(min(reached, default=budget.steps)))
    estimate = statistics.ratio(slow, fast)
    note = f"{budget}; steps are those of validations"
    if never:
        note += f"; {never} seed(s) never reached it and count as the whole run"
    if at_once:
        note += f"; {at_once} seed(s) had reached it at the first validation: a lower bound"
    return MeasuredTarget(estimate, len(seeds), 0, estimate.value >= 3, note)


# ---- success -----------------------------------------------------------------------------------


def _gain(
    one: str,
    other: str,
    met: Callable[[Estimate], bool],
    share: float = 1.0,
    groups: Sequence[str] = (),
) -> Measure:
    """Measure a paired difference of success [points] after a share of the steps, on some tasks."""

    def measure(results: Results) -> MeasuredTarget:
        pair, note = _pair(results, one, other, share, groups)
        points = _points(_difference(pair))
        return MeasuredTarget(points, len(pair.seeds), 2 * pair.rollouts, met(points), note)

    return measure


def _rich(results: Results) -> MeasuredTarget:
    found = _gain("prior", "no_prior", lambda e: e.value >= 3, groups=("rich",))(results)
    worst = math.inf
    for budget in results.budgets("prior", "no_prior"):
        tasks = results.tasks(("rich",))
        pair = paired([results.final(r, budget, tasks) for r in ("prior", "no_prior")])
        if pair is not None:
            one, other = (100 * o.mean() for o in pair.outcome_STN)
            worst = min(worst, float(one - other))
    note = f"{found.note}; smallest difference at any budget {worst:+.1f} points"
    return found._replace(met=found.met and worst >= 0, note=note)


def _history(results: Results) -> MeasuredTarget:
    groups = ("long", "memory")
    found = _gain("history", "prior", lambda e: e.value >= 10, groups=groups)(results)
    tasks = results.tasks(groups)
    budget = _budget(results, "history", "history_mlp")
    both = [results.final(role, budget, tasks) for role in ("history", "history_mlp")]
    if (pair := paired(both)) is None:
        raise MissingCells("history and history_mlp share no seed")
    more = _points(_difference(pair))
    note = f"{found.note}; over history by MLP {more.value:+.1f} ({more.low:+.1f} to "
    return found._replace(met=found.met and more.low > 0, note=note + f"{more.high:+.1f}) points")


def _equal_compute(results: Results) -> MeasuredTarget:
    """Measure the smallest mean lead at equal training seconds, after a third of the run."""
    budget = _budget(results, "no_prior", "prior")
    curves = [results.success_by_seconds(role, budget) for role in ("no_prior", "prior")]
    seeds = [s for s in _shared(*curves) if all(len(curve[s].rate_K) >= 3 for curve in curves)]
    if not seeds:
        raise MissingCells("success was not measured along the runs (cells with `curve: true`)")
    leads = [_lead(*(curve[seed] for curve in curves)) for seed in seeds]
    lead_SK = 100 * np.array(leads)
    worst = int(lead_SK.mean(0).argmin())
    estimate = statistics.mean(lead_SK[:, worst])
    rollouts = sum(results.curve_rollouts(role, budget, seeds) for role in ("no_prior", "prior"))
    return MeasuredTarget(
        estimate,
        len(seeds),
        rollouts,
        estimate.value > 0,
        f"{budget}; at the time of the smallest lead",
    )


def _lead(without: SuccessCurve, with_prior: SuccessCurve) -> statistics.Array:
    """Return the lead of the prior's arm at 21 times, after a third of the other arm's run."""
    times = np.linspace(without.seconds_K[-1] / 3, without.seconds_K[-1], 21)
    # Before its first measurement, an arm that still pretrains counts as no success.
    own = np.interp(times, with_prior.seconds_K, with_prior.rate_K, left=0.0)
    lead: statistics.Array = own - np.interp(times, without.seconds_K, without.rate_K)
    return lead


def _no_gain(results: Results) -> MeasuredTarget:
    worst: MeasuredTarget | None = None
    notes = []
    for role in ("shuffled", "noise"):
        try:
            found = _gain(role, "no_prior", lambda e: e.low <= 0)(results)
        except MissingCells as missing:
            notes.append(f"{role} not measured ({missing})")
            continue
        e = found.estimate
        notes.append(f"{role} {e.value:+.1f} ({e.low:+.1f} to {e.high:+.1f}), {found.note}")
        if worst is None or e.value > worst.estimate.value:
            worst = found._replace(met=found.met and (worst is None or worst.met))
        else:
            worst = worst._replace(met=found.met and worst.met)
    if worst is None:
        raise MissingCells("no control is finished")
    return worst._replace(note="the larger one; " + "; ".join(notes))


def _demonstrations(results: Results) -> MeasuredTarget:
    """Measure how many demonstrations the prior needs for the final success without prior."""
    steps, numbers = results.demonstration_series("prior", "no_prior")
    tasks = results.tasks()
    series = [
        paired([results.final(role, Budget(d, steps), tasks) for role in ("prior", "no_prior")])
        for d in numbers
    ]
    known = [(d, p) for d, p in zip(numbers, series, strict=True) if p is not None]
    seeds = sorted(set.intersection(*(set(p.seeds) for _, p in known))) if known else []
    if len(known) < 2 or not seeds:
        raise MissingCells("fewer than two numbers of demonstrations share their seeds")
    xs = [d for d, _ in known]
    needed = _needed(xs, _rates(known, seeds))
    note = f"{steps} steps; interpolated between measured numbers, linear in their logarithm"
    if needed.value <= xs[0]:
        note += f"; {xs[0]} suffice, fewer were not measured"
    rollouts = 2 * sum(p.rollouts for _, p in known)
    return MeasuredTarget(needed, len(seeds), rollouts, needed.value <= 15, note)


def _needed(xs: list[int], rates: list[statistics.Array]) -> Estimate:
    """Estimate where the first arm reaches the other's success at the largest x, over seeds."""
    with_prior_XS, without_XS = rates
    rng = np.random.default_rng(0)
    seeds = with_prior_XS.shape[1]
    drawn = rng.integers(seeds, size=(statistics.RESAMPLES, seeds))
    needed = [_crossing(xs, with_prior_XS[:, r].mean(1), without_XS[-1, r].mean()) for r in drawn]
    low, high = np.quantile(needed, [0.025, 0.975], method="nearest")
    value = _crossing(xs, with_prior_XS.mean(1), without_XS[-1].mean())
    return Estimate(value, float(low), float(high))


def _rates(known: list[tuple[int, PairedOutcomes]], seeds: list[int]) -> list[statistics.Array]:
    """Return the success of the two arms, each (numbers of demonstrations, S)."""
    return [
        np.array([[p.outcome_STN[arm][p.seeds.index(s)].mean() for s in seeds] for _, p in known])
        for arm in (0, 1)
    ]


def _crossing(xs: list[int], rates: statistics.Array, wanted: float) -> float:
    """Return the first x at which the curve, linear in log x, reaches ``wanted``; else infinity."""
    for k, rate in enumerate(rates):
        if rate >= wanted:
            if k == 0:
                return float(xs[0])
            share = (wanted - rates[k - 1]) / (rate - rates[k - 1])
            return float(xs[k - 1] * (xs[k] / xs[k - 1]) ** share)
    return math.inf


def _latency(results: Results) -> MeasuredTarget:
    budget = _budget(results, "history", "prior")
    one, other = (by_seed(results.final(r, budget), "latency_ms") for r in ("history", "prior"))
    seeds = _shared(one, other)
    r = statistics.ratio([one[s] for s in seeds], [other[s] for s in seeds])
    percent = Estimate(*(100 * (x - 1) for x in r))
    note = f"{budget}; median time of a re-plan in the rollouts"
    rollouts = sum(
        row.rollouts for role in ("history", "prior") for row in results.final(role, budget)
    )
    return MeasuredTarget(percent, len(seeds), rollouts, percent.value <= 2, note)


# ---- parts -------------------------------------------------------------------------------------


def _pair(
    results: Results, one: str, other: str, share: float, groups: Sequence[str]
) -> tuple[PairedOutcomes, str]:
    tasks = results.tasks(groups)
    if not tasks:
        raise MissingCells(f"the study names no tasks of {' or '.join(groups)}")
    budget = _budget(results, one, other)
    if (pair := paired(results.early((one, other), budget, share, tasks))) is None:
        where = f" at {share:.0%} of the steps" if share < 1 else ""
        raise MissingCells(f"{one} and {other} share no finished seed{where}")
    note = str(budget) if share == 1 else f"{budget}, after {share:.0%} of the steps"
    return pair, note


def _budget(results: Results, *roles: str, rollouts: bool = True) -> Budget:
    budgets = results.budgets(*roles, rollouts=rollouts)
    if not budgets:
        raise MissingCells(f"{' and '.join(roles)} have no finished cell in common")
    return max(budgets, key=lambda b: (b.steps, b.demonstrations))


def _shared(*values: Mapping[int, object]) -> list[int]:
    seeds = sorted(set.intersection(*(set(v) for v in values)))
    if not seeds:
        raise MissingCells("the arms share no finished seed")
    return seeds


def _difference(pair: PairedOutcomes) -> Estimate:
    one_STN, other_STN = pair.outcome_STN
    return statistics.success_difference(one_STN, other_STN)


def _points(rate: Estimate) -> Estimate:
    return Estimate(*(100 * x for x in rate))


# Targets that need no rollouts.
OPEN_LOOP = ("initial_loss", "initial_grad_norm", "steps_to_error")
TARGETS: list[tuple[str, str, str, str, str, Measure]] = [
    (
        "initial_loss",
        "initial prediction loss, no prior / prior",
        "≥ 8",
        "8",
        "×",
        _initial("initial_loss", 8),
    ),
    (
        "initial_grad_norm",
        "initial gradient norm, no prior / prior",
        "≥ 16",
        "16",
        "×",
        _initial("initial_grad_norm", 16),
    ),
    (
        "steps_to_error",
        "steps to the held-out error that no prior has after 30 % of the run",
        "≥ 3 times fewer",
        "3",
        "×",
        _steps_to_error,
    ),
    (
        "early_success",
        "success after 10 % of the steps, prior - no prior",
        "≥ +20",
        "+11",
        "points",
        _gain("prior", "no_prior", lambda e: e.value >= 20, share=0.1),
    ),
    (
        "tail",
        "tasks with few demonstrations, at the full budget",
        "≥ +26",
        "+26",
        "points",
        _gain("prior", "no_prior", lambda e: e.value >= 26, groups=("tail",)),
    ),
    (
        "rich",
        "tasks with many demonstrations, at the full budget",
        "≥ +3, never below no prior",
        "+2.2",
        "points",
        _rich,
    ),
    (
        "equal_compute",
        "lead at equal compute including Stage 1, after a third of the run",
        "> 0 throughout",
        "after 8 of 22 h",
        "points",
        _equal_compute,
    ),
    ("controls", "time-shuffled and noise priors - no prior", "no gain", "", "points", _no_gain),
    (
        "history",
        "history on long and memory tasks",
        "≥ +10, history by MLP clearly less",
        "+4 to +14",
        "points",
        _history,
    ),
    (
        "demonstrations",
        "demonstrations with the prior for the success of no prior with most demonstrations",
        "≤ 15",
        "",
        "demonstrations",
        _demonstrations,
    ),
    ("latency", "cost of the history token at inference", "≤ 2", "", "%", _latency),
    (
        "whole_run",
        "distillation for the whole run - for 10 % of the run",
        "< 0",
        "-5.2",
        "points",
        _gain("whole_run", "decay_10", lambda e: e.value < 0),
    ),
]
