"""Figures of held-out errors, with one panel per feature group."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actionprior.study import statistics
from actionprior.study.drawing import GREY, LINES, DrawnFigure, save, style
from actionprior.study.group_errors import FeatureGroup, along, at_end, feature_groups
from actionprior.study.results import Budget, Results
from actionprior.study.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[int, Estimate]]


class ErrorChart(NamedTuple):
    """Title, axes and data that all panels of a figure share."""

    name: str
    title: str
    x: str
    y: str  # label; the unit of the group is appended
    ticks: list[int]  # of a logarithmic x axis; empty for a linear one
    points: Callable[[str, FeatureGroup], Points]  # role and group → points of a line
    recorded: Callable[[FeatureGroup], float] | None = None  # drawn as a dashed line


def draw_errors(results: Results, folder: Path) -> list[DrawnFigure]:
    """Draw the figures that the table has rows for, into an existing folder."""
    groups = feature_groups(results)
    budgets = results.budgets("prior", "no_prior", rollouts=False)
    if not groups or not budgets:
        return []
    steps, numbers = results.demonstration_series("prior", "no_prior", rollouts=False)
    richest = max(budgets, key=lambda b: (b.steps, b.demonstrations))
    charts = [
        ErrorChart(
            "error_by_steps",
            f"Held-out error along the runs ({richest})",
            "Stage-2 steps",
            "error",
            [],
            partial(_by_steps, results, richest),
        )
    ]
    if len(numbers) > 1:
        ends = partial(_by_demonstrations, results, steps, numbers)
        few = "demonstrations"
        charts = [
            ErrorChart(
                "error_by_demonstrations",
                f"Held-out error after {steps} steps, by demonstrations",
                few,
                "error",
                numbers,
                partial(ends, "mae"),
            ),
            *charts,
            ErrorChart(
                "smoothness",
                f"Second differences along chunks after {steps} steps (dashed: recorded)",
                few,
                "bend",
                numbers,
                partial(ends, "bend"),
                partial(_recorded, results, Budget(numbers[-1], steps)),
            ),
        ]
    return [_drawn(results, folder, groups, chart) for chart in charts]


def _drawn(
    results: Results, folder: Path, groups: list[FeatureGroup], chart: ErrorChart
) -> DrawnFigure:
    from matplotlib import pyplot as plt

    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    with style():
        canvas, axes = plt.subplots(
            rows, columns, figsize=(4.4 * columns, 2.7 * rows + 1), layout="constrained"
        )
        panels = np.ravel(axes)
        for axis, group in zip(panels, groups, strict=False):
            _panel(results, axis, group, chart)
        for axis in panels[len(groups) :]:
            axis.set_axis_off()
        for axis in panels[max(0, len(groups) - columns) : len(groups)]:
            axis.set_xlabel(chart.x)
        legend = panels[0].get_legend_handles_labels()
        canvas.legend(*legend, loc="outside lower center", ncols=len(legend[0]))
        canvas.suptitle(chart.title, x=0.01, ha="left", fontsize=11)
        save(canvas, folder, chart.name)
        plt.close(canvas)
    return DrawnFigure(chart.name, chart.title)


def _panel(results: Results, axis: "Axes", group: FeatureGroup, chart: ErrorChart) -> None:
    for role, colour, marker in LINES:
        if points := chart.points(role, group):
            xs = [x for x, _ in points]
            values, lows, highs = ([e[k] for _, e in points] for k in range(3))
            label = results.study.label(results.study.role(role))
            axis.plot(xs, values, color=colour, marker=marker, label=label, linewidth=2)
            axis.fill_between(xs, lows, highs, color=colour, alpha=0.18, linewidth=0)
    if chart.recorded is not None:
        axis.axhline(chart.recorded(group), color=GREY, linestyle="--", label="recorded")
    if chart.ticks:
        axis.set_xscale("log")
        axis.set_xticks(chart.ticks, [str(x) for x in chart.ticks])
        axis.minorticks_off()
    else:
        axis.set_xlim(0, None)
    unit = f" [{group.unit}]" if group.unit else ""
    axis.set(ylabel=chart.y + unit, ylim=(0, None))
    robots = {g.robot for g in feature_groups(results)}
    robot = f"{group.robot}: " if len(robots) > 1 else ""
    axis.set_title(robot + group.name.replace("_", " "), loc="left", fontsize=11)


def _by_steps(results: Results, budget: Budget, role: str, group: FeatureGroup) -> Points:
    by_step: dict[int, list[float]] = {}
    for errors in along(results, role, budget, group, "mae").values():
        for step, error in errors.items():
            by_step.setdefault(step, []).append(error)
    return [(step, statistics.mean(errors)) for step, errors in sorted(by_step.items())]


def _by_demonstrations(
    results: Results, steps: int, numbers: list[int], column: str, role: str, group: FeatureGroup
) -> Points:
    found = [(d, at_end(results, role, Budget(d, steps), group, column)) for d in numbers]
    return [(d, statistics.mean(list(by_seed.values()))) for d, by_seed in found if by_seed]


def _recorded(results: Results, budget: Budget, group: FeatureGroup) -> float:
    bends = at_end(results, "no_prior", budget, group, "bend_recorded")
    return float(np.mean(list(bends.values())))
