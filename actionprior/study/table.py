"""Results table of a study: one row per cell, task and step, as Parquet and CSV.

Axes: S seeds, T tasks, N rollouts (scenes) per task.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from actionprior.errors import shorten, shown
from actionprior.files.atomic import atomic_file
from actionprior.study.recipe import StudyError
from actionprior.study.statistics import Array


class ResultRow(NamedTuple):
    """Rollouts of one task at one step of a cell, or a validation (``task`` is empty).

    A validation has one row for all slots together (``group`` is empty) with ``val_mae``. It has
    one more row per robot and feature group, with ``mae`` and the bends in the group's unit. Cells
    with rollouts have the latter only for the last validation.

    Unknown numbers are NaN. Seconds count only training, on the machine that ran it: the median
    time of a step times the steps, without validation, rollouts and start-up.
    """

    cell: str  # identity: hash of the complete configuration
    arm: str
    part: str  # "" if the study has no parts
    prior: str
    prior_seed: int
    seed: int
    demonstrations: int  # per task
    steps: int  # of the complete run
    step: int  # of the measurement
    task: str  # environment id
    robot: str
    group: str  # feature group of the robot's action
    unit: str  # of the group
    rollouts: int
    successes: int
    outcomes: str  # one digit per scene, in the order of the scenes' seeds; 1 is success
    first_scene: int
    latency_ms: float  # of a re-plan, median over episodes
    val_mae: float  # held-out error at this step, as a share of each slot's range
    mae: float  # held-out error of the group, in its unit
    bend: float  # mean absolute second difference along predicted chunks, in the group's unit
    bend_recorded: float  # the same along recorded chunks
    initial_loss: float  # prediction loss, mean over the run's first ten steps
    initial_grad_norm: float  # gradient norm, mean over the same steps
    stage1_seconds: float
    stage2_seconds: float  # until this step
    revision: str  # git
    configuration: str  # JSON: overrides of the arm and of its prior


Table = Sequence[ResultRow]
MARKUP = "<>|`"
"""Characters that texts of a table must not have, since a Markdown page shows them."""


def write_table(rows: Table, stem: Path) -> None:
    """Write ``<stem>.parquet`` and ``<stem>.csv``, each atomically."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(ResultRow._fields))
    for suffix, write in ((".parquet", frame.to_parquet), (".csv", frame.to_csv)):
        with atomic_file(stem.with_name(stem.name + suffix)) as part:
            write(part, index=False)


def read_table(path: Path) -> list[ResultRow]:
    """Read a table from a ``.parquet`` or ``.csv`` file.

    Raises:
        StudyError: The file is missing or damaged, has other columns, or a value of another type.
    """
    import pandas as pd

    if not path.is_file():
        raise StudyError(f"{path} does not exist; expected a results table of `lightning study`")
    text = {name: str for name, kind in ResultRow.__annotations__.items() if kind is str}
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(
                path,
                dtype=text,
                keep_default_na=False,
                na_values=[""],
                float_precision="round_trip",
            )
            present = [name for name in text if name in frame]
            frame[present] = frame[present].fillna("")
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise StudyError(f"{path} cannot be read as a table ({shorten(error)})") from error
    if list(frame.columns) != list(ResultRow._fields):
        lacking, unknown = (
            [name for name in one if name not in other]
            for one, other in (
                (ResultRow._fields, list(frame.columns)),
                (list(map(str, frame.columns)), ResultRow._fields),
            )
        )
        raise StudyError(
            f"{path} is no results table: it lacks the columns {lacking} and has the unknown "
            f"columns {shown(unknown)}; expected {', '.join(ResultRow._fields)} in this order"
        )
    rows = [ResultRow(*values) for values in frame.itertuples(index=False)]
    for number, row in enumerate(rows):
        for name, kind in ResultRow.__annotations__.items():
            _check_value(path, number, name, getattr(row, name), kind)
        played = (row.rollouts, row.successes)
        counted = (len(row.outcomes), row.outcomes.count("1"))
        if played != counted:
            raise StudyError(
                f"{path}: row {number} has rollouts {played[0]} and successes {played[1]}, but "
                f"its outcomes count {counted[0]} and {counted[1]}"
            )
    return rows


def _check_value(path: Path, row: int, name: str, value: object, kind: type) -> None:
    """Refuse a value of another type, and texts that a page or a terminal would interpret."""
    expected = {str: "a text", int: "a whole number of 0 or more", float: "a number"}[kind]
    good = isinstance(value, str if kind is str else (int, float, np.number))
    if kind is int and good:
        good = float(cast(float, value)).is_integer() and cast(float, value) >= 0
    if name == "outcomes" and good:
        expected = "digits 0 and 1"
        good = set(str(value)) <= {"0", "1"}
    elif kind is str and good and name != "configuration":
        expected = f"a text without control characters and {MARKUP}"
        good = str(value).isprintable() and not set(str(value)) & set(MARKUP)
    if not good or isinstance(value, bool):
        raise StudyError(f"{path}: row {row} has {name} {shown(value)}, expected {expected}")


class PairedOutcomes(NamedTuple):
    """Outcomes of several arms on the same seeds, tasks and scenes."""

    seeds: list[int]
    tasks: list[str]
    outcome_STN: list[Array]  # one per arm; 0 or 1

    @property
    def rollouts(self) -> int:
        """Number of rollouts of one arm."""
        return int(self.outcome_STN[0].size)


def select(rows: Iterable[ResultRow], **wanted: Any) -> list[ResultRow]:  # noqa: ANN401  columns' values
    """Select rows by values of columns; a list accepts any of its values."""
    found = list(rows)
    for name, value in wanted.items():
        column = ResultRow._fields.index(name)
        if isinstance(value, list | set | tuple):
            found = [row for row in found if row[column] in value]
        else:
            found = [row for row in found if row[column] == value]
    return found


def full(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Select the rollout rows at the end of runs."""
    return [row for row in rows if row.task and row.step == row.steps]


def paired(groups: Sequence[Sequence[ResultRow]]) -> PairedOutcomes | None:
    """Pair the outcomes of several arms by seed, task and scene; None if they share no seed.

    Args:
        groups: Rollout rows of each arm, at most one per seed and task. A seed counts if all arms
            have all its tasks. Scenes beyond those of the shortest row are left out.

    Raises:
        StudyError: A seed and task has two rows, or arms were evaluated on different scenes.
    """
    found: list[dict[tuple[int, str], ResultRow]] = []
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
        found_scenes = {
            row.first_scene: f"arm {row.arm!r}, seed {row.seed}: scenes from {row.first_scene}"
            for arm in chosen
            for row in (by_seed[k] for by_seed in arm)
        }
        if len(found_scenes) > 1:
            raise StudyError(
                f"{tasks[k]} was evaluated on different scenes, so that nothing pairs "
                f"({'; '.join(list(found_scenes.values())[:4])})"
            )
    count = min(len(row.outcomes) for row in flat)
    outcome = [
        np.array([[[float(c) for c in r.outcomes[:count]] for r in line] for line in arm])
        for arm in chosen
    ]
    return PairedOutcomes(seeds, tasks, outcome)


def by_seed(rows: Iterable[ResultRow], column: str) -> dict[int, float]:
    """Average a column per seed: over the rows of each part, then over parts, without NaN."""
    values: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        if not math.isnan(value := float(getattr(row, column))):
            values.setdefault(row.seed, {}).setdefault(row.part, []).append(value)
    return {
        seed: float(np.mean([np.mean(v) for v in parts.values()]))
        for seed, parts in sorted(values.items())
    }
