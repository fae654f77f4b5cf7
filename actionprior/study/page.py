"""Report of a study in Markdown, with tables and figures from its results table."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from actionprior.files.atomic import write_text
from actionprior.study.arm_summaries import ArmSummary, seconds_of, summaries
from actionprior.study.drawing import DrawnFigure
from actionprior.study.group_errors import GroupError, group_errors
from actionprior.study.illustrations import illustrations_in
from actionprior.study.results import Budget, Results
from actionprior.study.statistics import Estimate
from actionprior.study.table import by_seed, select
from actionprior.study.targets import TargetResult

METHOD = """\
Intervals are 95 % bootstrap intervals:

| quantity | resampled |
|---|---|
| success | seeds, and rollouts within them |
| differences of success | seeds and scenes, both paired |
| ratios, the lead at equal compute, the demonstrations needed | only seeds |

IQM is the interquartile mean over seeds and tasks. P(better) is the probability that a run of the
arm does better on a task than a run of the arm it is compared with; equal results count ½. Both
follow rliable (Agarwal et al., *Deep reinforcement learning at the edge of the statistical
precipice*, NeurIPS 2021).

With few seeds a bootstrap interval is rough. In simulations, intervals of five seeds contain the
true value in 91 to 99 % of cases, intervals of three seeds in 87 to 100 %; the share falls as seeds
differ more. There is no correction for the number of arms."""

OPEN_LOOP = """\
The project has no simulator of this robot, so there is no success rate. The arms are compared open
loop, by the mean absolute error of chunks on held-out episodes, in the robot's own units.

- **no prior, prior**: mean over seeds with 95 % bootstrap intervals, rough with few seeds.
- **change**: geometric mean of the ratio with and without the prior, paired by seed.
- **bend**: mean absolute second difference along a chunk's steps. The bend of recorded chunks shows
  how smooth the demonstrator is.
- **steps to match**: steps until the prior's arm reaches the final error without prior. If it does
  so at the first validation, it may have done so earlier."""


def write_page(
    results: Results,
    found: Sequence[TargetResult],
    figures: Sequence[DrawnFigure],
    page: Path,
    config: str,
    cells: int,
) -> None:
    """Write the report; its figures are in the folder ``<page without suffix>/``.

    Args:
        results: Results table with its study.
        found: Results of the targets.
        figures: Figures that were drawn.
        page: File to write.
        config: Path of the study file, as given on the command line.
        cells: Number of cells of the complete grid, finished or not.
    """
    folder = page.stem
    parts = [
        f"# {results.study.title}",
        f"Written by `lightning study --config {config}` from "
        f"[`results.csv`]({folder}/results.csv) ([Parquet]({folder}/results.parquet)), which holds "
        "every number below.",
        _counts(results, cells),
    ]
    if results.study.notes:
        parts.append(results.study.notes.strip())
    first = ("success_by_steps", "success_by_demonstrations", "error_by_demonstrations")
    rest = _pictures([f for f in figures if f.name not in first], folder)
    parts.append(_pictures(figures, folder, first))
    if any(f.value is not None for f in found):
        parts += ["## Targets", target_table(found)]
    if results.has_rollouts:
        found_summaries = summaries(results)
        parts += ["## Every arm", METHOD, arm_table(results, found_summaries), rest]
        parts += ["## By task", _task_table(results, found_summaries)]
    else:
        parts += ["## Held-out errors", OPEN_LOOP, error_table(group_errors(results)), rest]
    parts.append(_illustrations(page.with_suffix("")))
    parts += ["## Start and cost", _cost_table(results)]
    parts += ["## What the arms are", _definitions(results)]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text("\n\n".join(part for part in parts if part) + "\n", page)


def target_table(found: Iterable[TargetResult]) -> str:
    """Format the targets in Markdown."""
    head = ("quantity", "target", "paper", "found", "95 % interval", "seeds", "rollouts", "met")
    rows = [
        (
            f.quantity,
            f.target,
            f.paper or "–",
            *value_and_interval(f),
            f.seeds or "–",
            f.rollouts or "–",
            verdict(f),
        )
        for f in found
    ]
    notes = [f"- {f.quantity}: {f.note}." for f in found]
    return "\n".join([_table(head, rows), "", *notes])


def value_and_interval(result: TargetResult) -> tuple[str, str]:
    """Format value and interval of a target."""
    if result.value is None or result.low is None or result.high is None:
        return "not measured", "–"
    signed = "+" if result.unit == "points" else ""
    value, low, high = (
        "never" if math.isinf(x) else f"{x:{signed}.3g}"
        for x in (result.value, result.low, result.high)
    )
    unit = "" if value == "never" else f" {result.unit}"
    no_interval = result.seeds == 1 and result.low == result.high  # only seeds are resampled
    return value + unit, "one seed" if no_interval else f"{low} to {high}"


def verdict(result: TargetResult) -> str:
    """Format whether a target is met."""
    return {True: "yes", False: "**no**", None: "not measured"}[result.met]


def arm_table(results: Results, found: Sequence[ArmSummary]) -> str:
    """Format all arms at all budgets, with and without effect."""
    study = results.study
    over = f"over {study.label(study.reference)} [points]"
    head = ["demos", "steps", "arm", "success [%]", "IQM [%]", over]
    head += ["P(better)", "seeds", "rollouts"]
    rows = []
    for s in found:
        difference = "–" if s.difference is None else _interval(s.difference, "+.1f", 100)
        better = "–" if s.improvement is None else _interval(s.improvement, ".2f", 1)
        shares = (_interval(e, ".1f", 100) for e in (s.success, s.interquartile_mean))
        name = study.label(s.arm)
        rows.append((*s.budget, name, *shares, difference, better, s.seeds, s.rollouts))
    return _table(head, rows)


def error_table(found: Iterable[GroupError]) -> str:
    """Format the errors, bends and steps of each feature group at each budget."""
    head = ["group", "unit", "demos", "steps", "no prior", "prior", "change [%]"]
    head += ["bend: no prior", "bend: prior", "bend: recorded", "steps to match", "seeds"]
    rows = []
    for f in found:
        shown = _interval if f.seeds > 1 else _value
        errors = (shown(e, ".3g", 1) for e in (f.no_prior, f.prior))
        change = "–"
        if f.ratio is not None:
            change = shown(Estimate(*(x - 1 for x in f.ratio)), "+.1f", 100)
        bends = (f"{x:.2g}" for x in (f.bend_no_prior, f.bend_prior, f.bend_recorded))
        steps = shown(f.steps_to_match, ".0f", 1)
        steps += f"; {f.never} never" if f.never else ""
        name = f"{f.group.robot}: {f.group.name.replace('_', ' ')}"
        rows.append((name, f.group.unit, *f.budget, *errors, change, *bends, steps, f.seeds))
    return _table(head, rows)


# ---- parts -------------------------------------------------------------------------------------


def _counts(results: Results, cells: int) -> str:
    table = results.finished
    done, counted = (
        len({(r.arm, r.part, r.seed, r.demonstrations, r.steps) for r in rows})
        for rows in (table, results.table)
    )
    left_out = f"| excluded, since other parts of their runs are not finished | {done - counted} |"
    trained = len({r.cell for r in table})
    seeds = sorted({r.seed for r in table})
    once = {(r.cell, r.step, r.task): r.rollouts for r in table}
    revisions = ", ".join(f"`{r}`" for r in sorted({r.revision for r in table})) or "none"
    priors = (
        "one prior per seed"
        if results.study.prior_per_seed
        else "one Stage-1 checkpoint per prior; seeds vary only Stage 2"
    )
    lines = [
        f"| finished cells | {done} of {cells}, of {trained} different runs |",
        *([left_out] if counted < done else []),
        f"| seeds | {seeds} ({priors}) |",
        f"| rollouts | {sum(once.values())} |",
        f"| revisions | {revisions} |",
    ]
    return "\n".join(["| | |", "|---|---|", *lines])


def _pictures(figures: Sequence[DrawnFigure], folder: str, names: Sequence[str] = ()) -> str:
    chosen = [f for f in figures if not names or f.name in names]
    return "\n\n".join(f"![{f.title}]({folder}/{f.name}.svg)" for f in chosen)


def _illustrations(folder: Path) -> str:
    found = illustrations_in(folder)
    if not found:
        return ""
    text = "`lightning illustrate` draws these from models, not from the results table."
    return "\n\n".join(["## What the models do", text, _pictures(found, folder.name)])


def _task_table(results: Results, found: Sequence[ArmSummary]) -> str:
    tasks = results.tasks()
    rows = []
    for s in found:
        final = results.final(s.arm, s.budget)
        counts = []
        for task in tasks:
            mine = select(final, task=task)
            won, played = sum(r.successes for r in mine), sum(r.rollouts for r in mine)
            counts.append(f"{won}/{played}" if played else "–")
        rows.append((*s.budget, results.study.label(s.arm), *counts))
    names = [task.split("/")[-1].removesuffix("-v0") for task in tasks]
    text = "Successes / rollouts over all seeds."
    return "\n\n".join([text, _table(("demos", "steps", "arm", *names), rows)])


def _cost_table(results: Results) -> str:
    rows = []
    for arm, budget in _arms_by_budget(results):
        ends = results.ends(arm, budget)
        columns = ("initial_loss", "initial_grad_norm", "val_mae", "latency_ms")
        means = [_mean(by_seed(ends, c).values()) for c in columns]
        seconds = (_number(x, ".0f") for x in seconds_of(results, arm, budget))
        rows.append((*budget, results.study.label(arm), *means, *seconds))
    head = ["demos", "steps", "arm", "initial loss", "initial gradient norm"]
    text = (
        "Means over seeds. Initial values are means of the first ten steps. Seconds are training "
        "time on the machine that ran the cell: the median time of a step times the steps. Those "
        "of Stage 1 are spent once per prior, for all cells that start from it."
    )
    head += ["final held-out error", "re-plan [ms]", "Stage 1 [s]", "Stage 2 [s]"]
    return "\n\n".join([text, _table(head, rows)])


def _arms_by_budget(results: Results) -> list[tuple[str, Budget]]:
    """List arms and budgets, largest budgets first, arms in the study's order."""
    both = [(a, b) for a in results.study.arms for b in results.budgets(a, rollouts=False)]
    return sorted(both, key=lambda ab: (-ab[1].steps, -ab[1].demonstrations))


def _definitions(results: Results) -> str:
    study, rows = results.study, []
    for name, arm in study.arms.items():
        changes = (_changes(arm.overrides), _changes(study.priors[arm.prior]))
        tuning = arm.tuning or "none"
        rows.append((study.label(name), changes[0], f"{arm.prior}: {changes[1]}", tuning))
    text = (
        f"Everything else is as in `{study.stage1.recipe}` with "
        f"{_changes(study.stage1.overrides)} (Stage 1) and `{study.stage2.recipe}` with "
        f"{_changes(study.stage2.overrides)} (Stage 2)."
    )
    if list(study.parts) != [""]:
        parts = (f"{name} ({_changes(changes)})" for name, changes in study.parts.items())
        text += f" Stage 2 runs once for each of: {'; '.join(parts)}."
    return "\n\n".join([text, _table(("arm", "Stage 2", "prior", "tuning budget"), rows)])


def _changes(overrides: dict[str, object]) -> str:
    changes = [f"`{name}: {json.dumps(value)}`" for name, value in overrides.items()]
    return ", ".join(changes) or "no change"


def _interval(estimate: Estimate, form: str, scale: float) -> str:
    value, low, high = (f"{scale * x:{form}}" for x in estimate)
    return f"{value} ({low} to {high})"


def _value(estimate: Estimate, form: str, scale: float) -> str:
    return f"{scale * estimate.value:{form}}"


def _mean(values: Iterable[float]) -> str:
    known = [v for v in values if not math.isnan(v)]
    return _number(sum(known) / len(known), ".3g") if known else "–"


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
