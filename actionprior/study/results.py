"""A study's results by role and budget: what targets and figures ask the table for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from actionprior.study.plan import Study
from actionprior.study.statistics import Array
from actionprior.study.table import Row, Table, full, select


class Budget(NamedTuple):
    """What a Stage-2 run is given."""

    demonstrations: int
    steps: int

    def __str__(self) -> str:
        return f"{self.demonstrations} demonstrations, {self.steps} steps"


class Curve(NamedTuple):
    """Success along a run."""

    seconds_K: Array  # of training, Stage 1 counted in, ascending
    rate_K: Array  # 0 to 1, mean over tasks


class Results:
    """A results table with the study that it belongs to.

    Of a run with parts, such as each robot by itself, nothing counts before all are finished:
    arms would be compared on different robots.

    Attributes:
        finished: rows of all finished cells.
        table: those that count.
    """

    def __init__(self, study: Study, table: Table) -> None:
        parts: dict[tuple[object, ...], set[str]] = {}
        for row in table:
            parts.setdefault(_run(row), set()).add(row.part)
        self.study = study
        self.finished = table
        self.table = [row for row in table if parts[_run(row)] == set(study.parts)]

    @property
    def has_rollouts(self) -> bool:
        """Whether anything was played; a real robot without a simulator has errors alone."""
        return any(row.rollouts for row in self.table)

    def rows(self, role: str, budget: Budget) -> list[Row]:
        """All rows of a role's arm (or of an arm, by its name) at a budget."""
        return select(self.table, arm=self.study.role(role), **budget._asdict())

    def final(self, role: str, budget: Budget, tasks: Sequence[str] | None = None) -> list[Row]:
        """Rollout rows at the runs' ends."""
        rows = full(self.rows(role, budget))
        return rows if tasks is None else select(rows, task=list(tasks))

    def ends(self, role: str, budget: Budget) -> list[Row]:
        """All rows of each seed's last measurement, rollouts or not."""
        rows = self.rows(role, budget)
        last: dict[int, int] = {}
        for row in rows:
            last[row.seed] = max(row.step, last.get(row.seed, 0))
        return [row for row in rows if row.step == last[row.seed]]

    def early(
        self, roles: Sequence[str], budget: Budget, share: float, tasks: Sequence[str]
    ) -> list[list[Row]]:
        """Rollout rows of each role after a share of the budget's steps.

        Of completed runs of that length where all roles have them, else along the longer runs.
        """
        if share == 1:
            return [self.final(role, budget, tasks) for role in roles]
        step = round(share * budget.steps)
        completed = [self.final(role, budget._replace(steps=step), tasks) for role in roles]
        if all(completed):
            return completed
        return [select(self.rows(role, budget), task=list(tasks), step=step) for role in roles]

    def budgets(self, *roles: str, rollouts: bool = True) -> list[Budget]:
        """Where all the roles have a finished cell (with ``rollouts``: with rollouts)."""
        sets = []
        for role in roles:
            rows = select(self.table, arm=self.study.role(role))
            rows = full(rows) if rollouts else rows
            sets.append({Budget(row.demonstrations, row.steps) for row in rows})
        return sorted(set.intersection(*sets))

    def demonstration_series(self, *roles: str, rollouts: bool = True) -> tuple[int, list[int]]:
        """The number of steps at which the roles share the most numbers of demonstrations."""
        series: dict[int, list[int]] = {}
        for budget in self.budgets(*roles, rollouts=rollouts):
            series.setdefault(budget.steps, []).append(budget.demonstrations)
        steps = max(series, key=lambda k: (len(series[k]), k), default=0)
        return steps, sorted(series.get(steps, []))

    def tasks(self, groups: Sequence[str] = ()) -> list[str]:
        """Tasks of some groups; all there are without a group.

        ``rich`` is what is in no other group where the study does not name it.
        """
        everything = sorted({row.task for row in self.table if row.task})
        if not groups:
            return everything
        named = dict(self.study.groups)
        others = {task for tasks in named.values() for task in tasks}
        named.setdefault("rich", [task for task in everything if task not in others])
        return sorted({task for group in groups for task in named.get(group, [])})

    def errors(self, role: str, budget: Budget) -> dict[int, dict[int, float]]:
        """Seed → step → held-out error of all slots together, mean over the study's parts.

        A step counts where all parts were measured.
        """
        found: dict[tuple[int, int], list[float]] = {}
        for row in sorted(self.rows(role, budget), key=lambda row: row.step):
            if not row.task and not row.group:
                found.setdefault((row.seed, row.step), []).append(row.val_mae)
        result: dict[int, dict[int, float]] = {}
        for (seed, step), errors in found.items():
            if len(errors) == len(self.study.parts):
                result.setdefault(seed, {})[step] = float(np.mean(errors))
        return result

    def success_along(self, role: str, budget: Budget) -> dict[int, dict[int, list[Row]]]:
        """Seed → step → rollout rows of all tasks."""
        result: dict[int, dict[int, list[Row]]] = {}
        for row in self.rows(role, budget):
            if row.task:
                result.setdefault(row.seed, {}).setdefault(row.step, []).append(row)
        return {seed: dict(sorted(steps.items())) for seed, steps in result.items()}

    def success_by_seconds(self, role: str, budget: Budget) -> dict[int, Curve]:
        """Seed → success against training seconds of both stages."""
        result = {}
        for seed, steps in self.success_along(role, budget).items():
            rows_K = list(steps.values())
            seconds = [sum(seconds_of(rows)) for rows in rows_K]
            rates = [np.mean([r.successes / r.rollouts for r in rows]) for rows in rows_K]
            if np.isfinite(seconds).all():
                result[seed] = Curve(np.array(seconds), np.array(rates))
        return result

    def curve_rollouts(self, role: str, budget: Budget, seeds: Sequence[int]) -> int:
        """Rollouts along a role's runs, these seeds together."""
        return sum(row.rollouts for row in self.rows(role, budget) if row.seed in seeds)


def _run(row: Row) -> tuple[object, ...]:
    return row.arm, row.seed, row.demonstrations, row.steps


def seconds_of(rows: Sequence[Row]) -> tuple[float, float]:
    """Training seconds (Stage 1, Stage 2) of one seed's rows at a step, the parts' added up."""
    by_part = {row.part: row.stage2_seconds for row in rows}
    return rows[0].stage1_seconds, sum(by_part.values())
