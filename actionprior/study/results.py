"""Results of a study by role and budget, for targets and figures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from actionprior.study.plan import Study
from actionprior.study.statistics import Array
from actionprior.study.table import ResultRow, Table, full, select


class Budget(NamedTuple):
    """Demonstrations per task and training steps of a Stage-2 run."""

    demonstrations: int
    steps: int

    def __str__(self) -> str:
        return f"{self.demonstrations} demonstrations, {self.steps} steps"


class SuccessCurve(NamedTuple):
    """Success during a run."""

    seconds_K: Array  # of training, including Stage 1, ascending
    rate_K: Array  # 0 to 1, mean over tasks


class Results:
    """A results table with its study.

    A run with parts, such as one part per robot, counts only if all its parts are finished.
    Otherwise arms would be compared on different robots.

    Attributes:
        finished: Rows of all finished cells.
        table: Rows that count.
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
        """True if there are rollouts; a real robot without a simulator has only errors."""
        return any(row.rollouts for row in self.table)

    def rows(self, role: str, budget: Budget) -> list[ResultRow]:
        """Return all rows at a budget of a role's arm, or of an arm by its name."""
        return select(self.table, arm=self.study.role(role), **budget._asdict())

    def final(
        self, role: str, budget: Budget, tasks: Sequence[str] | None = None
    ) -> list[ResultRow]:
        """Return the rollout rows at the end of runs."""
        rows = full(self.rows(role, budget))
        return rows if tasks is None else select(rows, task=list(tasks))

    def ends(self, role: str, budget: Budget) -> list[ResultRow]:
        """Return all rows of each seed's last measurement, with or without rollouts."""
        rows = self.rows(role, budget)
        last: dict[int, int] = {}
        for row in rows:
            last[row.seed] = max(row.step, last.get(row.seed, 0))
        return [row for row in rows if row.step == last[row.seed]]

    def early(
        self, roles: Sequence[str], budget: Budget, share: float, tasks: Sequence[str]
    ) -> list[list[ResultRow]]:
        """Return the rollout rows of each role after a share of the budget's steps.

        They are of completed runs of that length if all roles have them, otherwise of
        measurements during longer runs.
        """
        if share == 1:
            return [self.final(role, budget, tasks) for role in roles]
        step = round(share * budget.steps)
        completed = [self.final(role, budget._replace(steps=step), tasks) for role in roles]
        if all(completed):
            return completed
        return [select(self.rows(role, budget), task=list(tasks), step=step) for role in roles]

    def budgets(self, *roles: str, rollouts: bool = True) -> list[Budget]:
        """List the budgets at which all roles have a finished cell, with rollouts if asked for."""
        sets = []
        for role in roles:
            rows = select(self.table, arm=self.study.role(role))
            rows = full(rows) if rollouts else rows
            sets.append({Budget(row.demonstrations, row.steps) for row in rows})
        return sorted(set.intersection(*sets))

    def demonstration_series(self, *roles: str, rollouts: bool = True) -> tuple[int, list[int]]:
        """Return the steps with most shared numbers of demonstrations, and these numbers."""
        series: dict[int, list[int]] = {}
        for budget in self.budgets(*roles, rollouts=rollouts):
            series.setdefault(budget.steps, []).append(budget.demonstrations)
        steps = max(series, key=lambda k: (len(series[k]), k), default=0)
        return steps, sorted(series.get(steps, []))

    def tasks(self, groups: Sequence[str] = ()) -> list[str]:
        """List the tasks of some groups, or all tasks if no group is given.

        If the study does not define the group ``rich``, it has all tasks of no other group.
        """
        everything = sorted({row.task for row in self.table if row.task})
        if not groups:
            return everything
        named = dict(self.study.groups)
        others = {task for tasks in named.values() for task in tasks}
        named.setdefault("rich", [task for task in everything if task not in others])
        return sorted({task for group in groups for task in named.get(group, [])})

    def errors(self, role: str, budget: Budget) -> dict[int, dict[int, float]]:
        """Return seed → step → held-out error over all slots, averaged over the study's parts.

        A step counts if all parts were measured.
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

    def success_along(self, role: str, budget: Budget) -> dict[int, dict[int, list[ResultRow]]]:
        """Return seed → step → rollout rows of all tasks."""
        result: dict[int, dict[int, list[ResultRow]]] = {}
        for row in self.rows(role, budget):
            if row.task:
                result.setdefault(row.seed, {}).setdefault(row.step, []).append(row)
        return {seed: dict(sorted(steps.items())) for seed, steps in result.items()}

    def success_by_seconds(self, role: str, budget: Budget) -> dict[int, SuccessCurve]:
        """Return seed → success against training seconds of both stages."""
        result = {}
        for seed, steps in self.success_along(role, budget).items():
            rows_K = list(steps.values())
            seconds = [sum(seconds_of(rows)) for rows in rows_K]
            rates = [np.mean([r.successes / r.rollouts for r in rows]) for rows in rows_K]
            if np.isfinite(seconds).all():
                result[seed] = SuccessCurve(np.array(seconds), np.array(rates))
        return result

    def curve_rollouts(self, role: str, budget: Budget, seeds: Sequence[int]) -> int:
        """Count the rollouts during a role's runs of some seeds."""
        return sum(row.rollouts for row in self.rows(role, budget) if row.seed in seeds)


def _run(row: ResultRow) -> tuple[object, ...]:
    return row.arm, row.seed, row.demonstrations, row.steps


def seconds_of(rows: Sequence[ResultRow]) -> tuple[float, float]:
    """Sum the training seconds (Stage 1, Stage 2) of one seed's rows at a step over parts."""
    by_part = {row.part: row.stage2_seconds for row in rows}
    return rows[0].stage1_seconds, sum(by_part.values())
