"""Run a grid of arms, seeds and demonstrations, and write its table, figures and report.

On a SLURM cluster, first prepare what all cells share, then submit an array with one job per
cell::

    lightning study --config recipes/study/study.yaml --prepare
    sbatch --array=0-$(($(lightning study --config recipes/study/study.yaml --cells) - 1)) \
        --cpus-per-task=1 --wrap 'lightning study --config recipes/study/study.yaml \
        --cell $SLURM_ARRAY_TASK_ID'
    lightning study --config recipes/study/study.yaml --report
"""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from actionprior.commands._parser import call
from actionprior.errors import UserError

if TYPE_CHECKING:
    from actionprior.study.grid import Grid
    from actionprior.study.plan import Study
    from actionprior.study.runs import Runs
    from actionprior.study.table import ResultRow
    from actionprior.study.targets import TargetResult


def study(
    config: str,
    out: str = "outputs/study",
    page: str = "",
    at_once: int = 0,
    prepare: bool = False,
    cells: bool = False,
    cell: int = -1,
    report: bool = False,
) -> None:
    """Run the unfinished cells of a study, then write its table, figures and report.

    A cell is one Stage-2 run. A finished cell is not run again unless its configuration changes, so
    a killed study resumes with the missing cells. A cell in the results table beside `page` counts
    as finished.

    Args:
        config: Study file, such as recipes/study/study.yaml.
        out: Folder for runs, priors and logs; several studies may share it and the runs in it.
        page: Markdown file of the report, by default `OUT/NAME.md` with the study file's name.
            Table and figures go to the folder of that name without suffix.
        at_once: Number of parallel runs; 0 is one per core.
        prepare: Only record data and train trunk and priors.
        cells: Only print the number of cells.
        cell: Run only this cell, counted from 0, and write no report; -1 is all cells.
        report: Only write the report of the finished cells.

    Raises:
        UserError: The study file is wrong, a run failed, or more than one of prepare, cells, cell
            and report is given.
    """
    from actionprior.study.finished_cells import assemble
    from actionprior.study.grid import make_grid
    from actionprior.study.plan import Study
    from actionprior.study.runs import Runs
    from actionprior.study.table import read_table

    if prepare + cells + report + (cell >= 0) > 1:
        raise UserError("prepare, cells, cell and report exclude each other; give one of them")
    plan = Study.read(config)
    grid = make_grid(plan)
    if cells:
        print(len(grid.cells))
        return
    if cell >= len(grid.cells):
        raise UserError(f"cell is {cell}, expected 0 to {len(grid.cells) - 1}")
    target = Path(page or f"{out}/{Path(config).stem}.md")
    earlier = target.with_suffix("") / "results.parquet"
    known = read_table(earlier) if page and earlier.is_file() else []
    runs = Runs(plan, grid, Path(out), {row.cell for row in known})
    failure = None if report else _run(runs, cell, at_once or _cores(), prepare)
    if not prepare and cell < 0:
        rows = assemble(plan, grid, Path(out), known)
        if rows:
            write_report(plan, grid, rows, target, config)
        elif failure is None:
            raise UserError(f"no cell of {config} is finished under {out}; leave out --report")
    if failure is not None:
        raise failure


def _run(runs: "Runs", cell: int, at_once: int, prepare: bool) -> UserError | None:
    """Run all cells or one. Return a failure, since the finished cells still get a report."""
    cells = runs.grid.cells
    done = sum(map(runs.finished, cells))
    print(f"{len(cells)} cells, {done} of them finished", flush=True)
    try:
        runs.run(cells if cell < 0 else [cells[cell]], at_once, only_prepare=prepare)
    except UserError as error:
        return error
    return None


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_report(
    plan: "Study", grid: "Grid", rows: "list[ResultRow]", page: Path, config: str
) -> None:
    """Write table, figures and page; print the targets and the ``RESULT`` line."""
    from actionprior.study.arm_summaries import as_json, summaries
    from actionprior.study.figures import draw_all
    from actionprior.study.group_errors import as_json as plain_error
    from actionprior.study.group_errors import group_errors
    from actionprior.study.page import write_page
    from actionprior.study.results import Results
    from actionprior.study.table import write_table
    from actionprior.study.targets import measure_targets

    folder = page.with_suffix("")
    write_table(rows, folder / "results")
    results = Results(plan, rows)
    found = measure_targets(plan, rows)
    figures = draw_all(results, folder)
    write_page(results, found, figures, page, config, len(grid.cells))
    _print(found)
    print(f"report {page}, table {folder / 'results.parquet'}")
    record: dict[str, object] = {
        f.key: {k: _plain(v) for k, v in f._asdict().items() if k != "key"} for f in found
    }
    if results.has_rollouts:
        record["arms"] = [as_json(s) for s in summaries(results)]
    else:
        record["errors"] = [plain_error(f) for f in group_errors(results)]
    print("RESULT " + json.dumps(record), flush=True)


def _print(found: "list[TargetResult]") -> None:
    from rich.console import Console
    from rich.table import Table

    from actionprior.study.page import value_and_interval, verdict

    table = Table(title="Targets", caption="95 % bootstrap intervals")
    table.add_column("quantity", max_width=44)
    for name in ("target", "paper", "found", "95 % interval", "seeds", "rollouts", "met"):
        table.add_column(name, justify="right")
    for f in found:
        counts = (str(f.seeds or "–"), str(f.rollouts or "–"))
        table.add_row(
            f.quantity, f.target, f.paper, *value_and_interval(f), *counts, verdict(f).strip("*")
        )
    Console(width=140).print(table)


def _plain(value: object) -> object:
    """Write infinity as text, since JSON has no number for it."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main(args: list[str]) -> None:
    """Run the verb: see :func:`study` for its options."""
    call(study, args, "lightning study")
