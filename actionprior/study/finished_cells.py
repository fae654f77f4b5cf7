"""Results of finished cells, and the table rows made from them."""

import json
import math
from pathlib import Path
from typing import NamedTuple, Self

from actionprior.errors import shorten
from actionprior.files.atomic import write_json
from actionprior.files.plain_json import read_json
from actionprior.study.grid import Cell, Grid
from actionprior.study.plan import Study
from actionprior.study.recipe import Recipe, StudyError
from actionprior.study.run_outputs import Measurement, RunMeasurements
from actionprior.study.table import ResultRow, Table, select

_SECONDS = (
    "seconds_a_step"  # key of ``RunMeasurements.seconds_per_step`` in files; 0.1.0 wrote it so
)


class FinishedCell(NamedTuple):
    """Results of a cell, in a file that is written atomically when the cell is finished."""

    measured: RunMeasurements
    stage1_seconds: float
    revision: str

    def write(self, path: Path) -> None:
        """Write the results as JSON, atomically."""
        measured = self.measured._asdict()
        measured[_SECONDS] = measured.pop("seconds_per_step")
        measured["measurements"] = [m._asdict() for m in self.measured.measurements]
        write_json(self._asdict() | {"measured": measured}, path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of :meth:`write`.

        Raises:
            UserError: The file is damaged, or another program wrote it.
        """
        plain = read_json(path)
        try:
            measured = plain["measured"]
            measured["seconds_per_step"] = measured.pop(_SECONDS)
            measured["measurements"] = [Measurement(**m) for m in measured["measurements"]]
            return cls(**(plain | {"measured": RunMeasurements(**measured)}))
        except (TypeError, KeyError, AttributeError) as error:
            raise StudyError(
                f"{path} is no result of a cell ({type(error).__name__}: {shorten(error)}); remove "
                "it, and the cell runs again"
            ) from error


def rows_from_run(study: Study, cell: Cell, finished: FinishedCell) -> list[ResultRow]:
    """Make the table rows of one cell from its run."""
    measured = finished.measured
    arm = study.arms[cell.arm]
    configuration = {"arm": arm.overrides, "prior": study.priors[arm.prior]}
    return [
        ResultRow(
            cell=cell.id,
            arm=cell.arm,
            part=cell.part,
            prior=cell.prior.name,
            prior_seed=cell.prior.seed,
            seed=cell.seed,
            demonstrations=cell.demonstrations,
            steps=cell.steps,
            step=m.step,
            task=m.task,
            robot=m.robot,
            group=m.group,
            unit=m.unit,
            rollouts=len(m.outcomes),
            successes=m.outcomes.count("1"),
            outcomes=m.outcomes,
            first_scene=m.first_scene,
            latency_ms=m.latency_ms,
            val_mae=m.val_mae,
            mae=m.mae,
            bend=m.bend,
            bend_recorded=m.bend_recorded,
            initial_loss=measured.initial_loss,
            initial_grad_norm=measured.initial_grad_norm,
            stage1_seconds=finished.stage1_seconds if uses_prior(cell.recipe) else 0.0,
            stage2_seconds=m.step * measured.seconds_per_step,
            revision=finished.revision,
            configuration=json.dumps(configuration, sort_keys=True),
        )
        for m in measured.measurements
    ]


def uses_prior(recipe: Recipe) -> bool:
    """Return True if the cost of a run includes Stage 1."""
    model = recipe["model"]
    return bool(model.get("init_args", model).get("use_prior", True))


def rows_from_table(study: Study, cell: Cell, known: Table) -> list[ResultRow]:
    """Take the rows of a cell from an earlier table, under its current names."""
    rows = select(known, cell=cell.id)
    # Two arms may share a cell, whose rows are then in the table twice.
    once = {(row.step, row.task, row.robot, row.group): row for row in rows}
    seconds = [row.stage1_seconds for row in rows if not math.isnan(row.stage1_seconds)]
    stage1 = max(seconds, default=math.nan) if uses_prior(cell.recipe) else 0.0
    arm = study.arms[cell.arm]
    configuration = {"arm": arm.overrides, "prior": study.priors[arm.prior]}
    return [
        row._replace(
            arm=cell.arm,
            part=cell.part,
            prior=cell.prior.name,
            stage1_seconds=stage1,
            configuration=json.dumps(configuration, sort_keys=True),
        )
        for row in once.values()
    ]


def assemble(study: Study, grid: Grid, folder: Path, known: Table) -> list[ResultRow]:
    """Collect the rows of all cells finished under ``folder`` or in the ``known`` table."""
    result = []
    for cell in grid.cells:
        file = finished_file(folder, cell)
        if file.is_file():
            result += rows_from_run(study, cell, FinishedCell.read(file))
        else:
            result += rows_from_table(study, cell, known)
    return result


def finished_file(folder: Path, cell: Cell) -> Path:
    """Return the file of a cell's results."""
    return folder / "cells" / cell.id / "finished.json"
