"""Figures of a study, drawn from its results table only."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from actionprior.study.arm_summaries import most_compared_budget, success_of, summary_at
from actionprior.study.drawing import GREY, LINES, NONE, PRIOR, DrawnFigure, save, style
from actionprior.study.error_figures import draw_errors
from actionprior.study.results import Budget, Results
from actionprior.study.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_all(results: Results, folder: Path) -> list[DrawnFigure]:
    """Draw every figure that the table has rows for; skip the others."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    if not results.has_rollouts:
        return draw_errors(results, folder)
    wide, arms = (6.4, 4.0), (8.0, max(3.0, 1.4 + 0.34 * len(results.study.arms)))
    figures = [
        _drawn(folder, "success_by_steps", wide, partial(_by_steps, results)),
        _drawn(folder, "success_by_demonstrations", wide, partial(_by_demonstrations, results)),
        _drawn(folder, "error_by_steps", wide, partial(_error, results)),
        _drawn(folder, "arms", arms, partial(_arms, results)),
    ]
    for title, sweep in results.study.sweeps.items():
        name = "sweep_" + "".join(c if c.isalnum() else "_" for c in title.lower())
        draw = partial(_sweep, results, title=title, sweep=sweep)
        figures.append(_drawn(folder, name, (5.6, 3.8), draw))
    return [figure for figure in figures if figure is not None]


def _drawn(
    folder: Path, name: str, size: tuple[float, float], draw: Callable[["Axes"], str]
) -> DrawnFigure | None:
    from matplotlib import pyplot as plt

    with style():
        figure, axis = plt.subplots(figsize=size, layout="constrained")
        title = draw(axis)
        if title:
            legend = axis.get_legend_handles_labels()[0]
            axis.set_title(title, loc="left", fontsize=11, pad=26 if legend else 6)
            if legend:  # above the axes, where no line crosses it
                axis.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=len(legend))
            save(figure, folder, name)
        plt.close(figure)
    return DrawnFigure(name, title) if title else None


# Each function draws on an axis and returns the title, or "" if there is nothing to draw.


def _by_steps(results: Results, axis: "Axes") -> str:
    budget = _richest_curve(results)
    if budget is None:
        return ""
    for role, colour, marker in LINES:
        by_step: dict[int, list[Any]] = {}
        for steps in results.success_along(role, budget).values():
            for step, rows in steps.items():
                by_step.setdefault(step, []).extend(rows)
        points = [(k, e) for k, rows in sorted(by_step.items()) if (e := success_of(rows))]
        if len(points) > 1:
            _line(axis, points, colour, marker, results.study.label(results.study.role(role)))
    axis.set(xlabel="Stage-2 steps", ylabel="success [%]", ylim=(0, None), xlim=(0, None))
    return f"Success along one training run ({budget.demonstrations} demonstrations per task)"


def _by_demonstrations(results: Results, axis: "Axes") -> str:
    steps, numbers = results.demonstration_series("prior", "no_prior")
    if len(numbers) < 2:
        return ""
    for role, colour, marker in LINES:
        found = [
            (d, summary_at(results, results.study.role(role), Budget(d, steps))) for d in numbers
        ]
        points = [(d, s.success) for d, s in found if s is not None]
        if len(points) > 1:
            _line(axis, points, colour, marker, results.study.label(results.study.role(role)))
    axis.set_xscale("log")
    axis.set_xticks(numbers, [str(d) for d in numbers])
    axis.minorticks_off()
    axis.set(xlabel="demonstrations per task", ylabel="success [%]", ylim=(0, None))
    return f"Success after {steps} steps, by demonstrations"


def _error(results: Results, axis: "Axes") -> str:
    budgets = results.budgets("prior", "no_prior", rollouts=False)
    if not budgets:
        return ""
    budget = max(budgets, key=lambda b: (b.steps, b.demonstrations))
    for role, colour, marker in LINES:
        label = results.study.label(results.study.role(role))
        for k, errors in enumerate(results.errors(role, budget).values()):
            axis.plot(
                list(errors),
                list(errors.values()),
                color=colour,
                label=label if k == 0 else None,
                marker=marker,
                markersize=3,
                linewidth=1.2,
            )
    axis.set(
        xlabel="Stage-2 steps",
        ylabel="held-out action error\n(share of each slot's range)",
        ylim=(0, None),
        xlim=(0, None),
    )
    return f"Held-out error, one line per seed ({budget})"


def _arms(results: Results, axis: "Axes") -> str:
    budget = most_compared_budget(results)
    if budget is None:
        return ""
    found = [s for arm in results.study.arms if (s := summary_at(results, arm, budget))]
    if len(found) < 2:
        return ""
    roles = {results.study.role(role): colour for role, colour, _ in LINES}
    for control in ("shuffled", "noise"):
        roles.setdefault(results.study.role(control), GREY)
    for y, summary in enumerate(found):
        value, low, high = (100 * x for x in summary.success)
        axis.barh(y, value, color=roles.get(summary.arm, "#56B4E9"), height=0.66)
        axis.errorbar(
            value, y, xerr=[[value - low], [high - value]], color="black", capsize=3, linewidth=1.2
        )
        axis.text(high + 1, y, f"{value:.0f}", va="center", fontsize=10)
        if summary.arm == results.study.reference:
            axis.axvline(value, color=NONE, linestyle=":", linewidth=1.2, zorder=0)
    labels = [fill(f"{results.study.label(s.arm)} ({s.seeds})", 28) for s in found]
    axis.set_yticks(range(len(found)), labels)
    axis.margins(y=0.02)
    axis.invert_yaxis()
    axis.set(xlabel="success [%] with 95 % intervals; seeds in brackets", xlim=(0, None))
    return f"Success of every arm ({budget})"


def _sweep(results: Results, axis: "Axes", title: str, sweep: dict[str, Any]) -> str:
    budgets = results.budgets(*sweep["arms"])
    if not budgets:
        return ""
    budget = max(budgets, key=lambda b: (b.steps, b.demonstrations))
    found = [summary_at(results, arm, budget) for arm in sweep["arms"]]
    points = [(x, s.success) for x, s in enumerate(found) if s is not None]
    reference = summary_at(results, results.study.role("no_prior"), budget)
    if reference is not None:
        value, low, high = (100 * x for x in reference.success)
        axis.axhspan(low, high, color=NONE, alpha=0.15, linewidth=0)
        axis.axhline(value, color=NONE, linestyle="--", linewidth=1.4, label="no prior")
    _line(axis, points, PRIOR, "o", "with the prior", band=False)
    axis.set_xticks(range(len(found)), [str(x) for x in sweep["arms"].values()])
    axis.set(xlabel=sweep["x"], ylabel="success [%]", ylim=(0, None), xlim=(-0.3, len(found) - 0.7))
    return f"{title} ({budget})"


def _line(
    axis: "Axes",
    points: list[tuple[int, Estimate]],
    colour: str,
    marker: str,
    label: str,
    band: bool = True,
) -> None:
    xs = [x for x, _ in points]
    values, lows, highs = ([100 * e[k] for _, e in points] for k in range(3))
    axis.plot(xs, values, color=colour, marker=marker, label=label, linewidth=2)
    if band:
        axis.fill_between(xs, lows, highs, color=colour, alpha=0.18, linewidth=0)
        return
    error = [
        [v - low for v, low in zip(values, lows, strict=True)],
        [high - v for v, high in zip(values, highs, strict=True)],
    ]
    axis.errorbar(xs, values, yerr=error, color=colour, capsize=4, linestyle="none")


def _richest_curve(results: Results) -> Budget | None:
    def points(budget: Budget) -> int:
        lines = [results.success_along(role, budget) for role in ("prior", "no_prior")]
        return min(max(map(len, line.values()), default=0) for line in lines)

    budgets = [b for b in results.budgets("prior", "no_prior") if points(b) > 1]
    return max(budgets, key=lambda b: (b.steps, b.demonstrations), default=None)
