"""The results table: one tidy row a (cell, task, step), as Parquet and CSV.

Axes: S seeds, T tasks, N rollouts (scenes) a task.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from actionprior.files.atomic import atomic_file
from actionprior.study.recipe import StudyError
from actionprior.study.statistics import Array


class Row(NamedTuple):
    """One task of one cell at one step, or (``task`` empty) a validation that has no task.

    A validation is one row for all slots together (``group`` empty), which has ``val_mae``, and
    one for each robot and feature group, which has ``mae`` and the bends in the group's unit:
    without rollouts at every validation, else at the last one.

    Not-known numbers are NaN. Seconds are those of training alone on the machine that ran it:
    the median time of a step times the steps, without validation, rollouts and starting up.
    """

    cell: str  # identity: hash of the whole configuration
    arm: str
    part: str  # "" where the study has none
    prior: str
    prior_seed: int
    seed: int
    demonstrations: int  # of each task
    steps: int  # of the whole run
    step: int  # of the measurement
    task: str  # environment id
    robot: str
    group: str  # feature group of the robot's action
    unit: str  # of the group
    rollouts: int
    successes: int
    outcomes: str  # a digit a scene, in the order of the scenes' seeds: 1 is success
    first_scene: int
    latency_ms: float  # median over episodes of a re-plan
    val_mae: float  # held-out error at this step, in each slot's scale
    mae: float  # likewise, of the group, in its unit
    bend: float  # mean absolute second difference along predicted chunks, in the group's unit
    bend_recorded: float  # likewise, along the recorded ones
    initial_loss: float  # prediction loss, mean of the run's first ten steps
    initial_grad_norm: float  # likewise
    stage1_seconds: float
    stage2_seconds: float  # until this step
    revision: str  # git
    configuration: str  # JSON: the arm's overrides, and its prior's


Table = Sequence[Row]


def write_table(rows: Table, stem: Path) -> None:
    """Write ``<stem>.parquet`` and ``<stem>.csv``, each as a whole or not at all."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(Row._fields))
    for suffix, write in ((".parquet", frame.to_parquet), (".csv", frame.to_csv)):
        with atomic_file(stem.with_name(stem.name + suffix)) as part:
            write(part, index=False)


def read_table(path: Path) -> list[Row]:
    """Read ``.parquet`` or ``.csv`` back.

    Raises:
        StudyError: missing, or of other columns.
    """
    import pandas as pd

    if not path.is_file():
        raise StudyError(f"{path} is not here; expected a results table of `lightning study`")
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    else:
        text = {name: str for name, kind in Row.__annotations__.items() if kind is str}
        frame = pd.read_csv(
            path, dtype=text, keep_default_na=False, na_values=[""], float_precision="round_trip"
        )
        present = [name for name in text if name in frame]
        frame[present] = frame[present].fillna("")
    if list(frame.columns) != list(Row._fields):
        raise StudyError(f"{path} has columns {list(frame.columns)}, expected {list(Row._fields)}")
    return [Row(*values) for values in frame.itertuples(index=False)]


class Paired(NamedTuple):
    """Outcomes of several arms on the same seeds, tasks and scenes."""

    seeds: list[int]
    tasks: list[str]
    outcome_STN: list[Array]  # one an arm; 0 or 1

    @property
    def rollouts(self) -> int:
        """Of one arm."""
        return int(self.outcome_STN[0].size)


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:  # noqa: ANN401  columns' values
    """Rows whose columns have these values, or one of them where a list is given."""
    tests: list[tuple[str, Callable[[Any], bool]]] = [
        (name, value.__contains__ if isinstance(value, list | set | tuple) else value.__eq__)
        for name, value in wanted.items()
    ]
    return [row for row in rows if all(test(getattr(row, name)) for name, test in tests)]


def full(rows: Iterable[Row]) -> list[Row]:
    """Rows of rollouts at the end of their runs."""
    return [row for row in rows if row.task and row.step == row.steps]


def paired(groups: Sequence[Sequence[Row]]) -> Paired | None:
    """Outcomes of several arms where all of them have the seed and the task; None: nowhere.

    Args:
        groups: rollout rows of an arm each; at most one row a (seed, task). A seed counts only
            where all its tasks are there. Scenes beyond the shortest row's are left out.

    Raises:
        StudyError: a (seed, task) has two rows, or the scenes are not the same ones.
    """
    found: list[dict[tuple[int, str], Row]] = []
    for group in groups:
        by_key = {(row.seed, row.task): row for row in group if row.rollouts}
        if len(by_key) < len([row for row in group if row.rollouts]):
            raise StudyError(f"arm {group[0].arm!r} has several rows of one seed and task")
        found.append(by_key)
    tasks = sorted({task for rows in found for _, task in rows})
    seeds = sorted(
        seed
        for seed in {s for s, _ in found[0]}
        if all((seed, task) in rows for rows in found for task in tasks)
    )
    if not tasks or not seeds:
        return None
    chosen = [[[rows[s, t] for t in tasks] for s in seeds] for rows in found]
    flat = [row for arm in chosen for by_seed in arm for row in by_seed]
    for k in range(len(tasks)):
        scenes = {row.first_scene for arm in chosen for row in (by_seed[k] for by_seed in arm)}
        if len(scenes) > 1:
            raise StudyError(f"{tasks[k]} was evaluated on scenes from {scenes}: nothing pairs")
    count = min(len(row.outcomes) for row in flat)
    outcome = [
        np.array([[[float(c) for c in r.outcomes[:count]] for r in line] for line in arm])
        for arm in chosen
    ]
    return Paired(seeds, tasks, outcome)


def by_seed(rows: Iterable[Row], column: str) -> dict[int, float]:
    """One number a seed: the column's mean over each part's rows, then over parts; no NaN."""
    values: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        if not math.isnan(value := float(getattr(row, column))):
            values.setdefault(row.seed, {}).setdefault(row.part, []).append(value)
    return {
        seed: float(np.mean([np.mean(v) for v in parts.values()]))
        for seed, parts in sorted(values.items())
    }
