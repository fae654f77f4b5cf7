"""Report of the demo: a table, learning curves, a film and a line of JSON.

All numbers come from the runs' TensorBoard events and ``results.json`` files.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from actionprior.errors import UserError
from actionprior.files.atomic import write_json
from actionprior.rollout import wilson_interval
from actionprior.study.run_outputs import FIRST, NORMALIZED, LoggedCurve, read_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {"prior": "with the prior", "no_prior": "no prior", "shuffled": "time-shuffled prior"}
COLOURS = {"prior": "#1b6ca8", "no_prior": "#c8553d", "shuffled": "#8a8a8a"}


class DemoRun(NamedTuple):
    """A Stage-2 run of the demo."""

    arm: str
    seed: int
    folder: Path

    @property
    def log_dir(self) -> Path:
        """Folder of the events and rollouts."""
        return self.folder / "lightning_logs" / "version_0"

    @property
    def rollouts(self) -> list[Path]:
        """Files ``results.json`` in the order of steps; empty until the run is finished."""
        return sorted(self.log_dir.glob("rollouts/step_*/results.json"))

    @property
    def finished(self) -> bool:
        """True once there are rollouts: a run ends with them."""
        return bool(self.rollouts)


class RunOutcome(NamedTuple):
    """Curve, losses and successes of one run."""

    run: DemoRun
    mae: LoggedCurve
    initial_loss: float
    initial_grad_norm: float
    success: dict[str, tuple[int, int]]  # environment → successes, rollouts

    @property
    def counts(self) -> tuple[int, int]:
        """Successes and rollouts over all environments."""
        won, played = zip(*self.success.values(), strict=True)
        return sum(won), sum(played)


class ArmOutcome(NamedTuple):
    """Result of an arm over all seeds, a row of the table."""

    success: float
    ci95: tuple[float, float]
    rollouts: int
    by_seed: dict[int, float]
    initial_loss: float
    initial_grad_norm: float
    steps_to_mae: float | None  # None: a run never reached it


def report(
    runs: Sequence[DemoRun], folder: Path, demonstrations: int, steps: int, minutes: float
) -> None:
    """Print the table, draw ``demo.png``, copy one film, and print the ``RESULT`` line."""
    outcomes = [_read(run) for run in runs]
    arms = list(dict.fromkeys(run.arm for run in runs))
    # The largest final error of the runs, since some run never reaches their average.
    threshold = max(o.mae.values[-1] for o in outcomes if o.run.arm == "no_prior")
    rows = {arm: _row([o for o in outcomes if o.run.arm == arm], threshold) for arm in arms}
    _print(rows, outcomes, threshold, demonstrations, steps)
    _draw(outcomes, rows, folder / "demo.png", demonstrations, steps)
    _copy_film(runs, folder / "success.mp4")
    result = _result(rows, outcomes, minutes)
    write_json(result, folder / "result.json")
    print(f"picture {folder / 'demo.png'}, film {folder / 'success.mp4'}")
    print("RESULT " + json.dumps(result), flush=True)


def _read(run: DemoRun) -> RunOutcome:
    if not run.finished:
        raise UserError(f"{run.log_dir} holds no rollouts; expected the end of a finished run")
    curves = read_curves(run.log_dir)
    environments = json.loads(run.rollouts[-1].read_text())["environments"]
    return RunOutcome(
        run,
        curves[NORMALIZED],
        mean(curves["train/loss_pred"].values[:FIRST]),
        mean(curves["train/grad_norm"].values[:FIRST]),
        {
            e["env_id"]: (sum(x["success"] for x in e["episodes"]), len(e["episodes"]))
            for e in environments
        },
    )


def _row(outcomes: list[RunOutcome], threshold: float) -> ArmOutcome:
    won, played = (sum(counts) for counts in zip(*(o.counts for o in outcomes), strict=True))
    steps = [_steps_to(o.mae, threshold) for o in outcomes]
    reached = [s for s in steps if s is not None]
    return ArmOutcome(
        success=won / played,
        ci95=wilson_interval(won, played),
        rollouts=played,
        by_seed={o.run.seed: o.counts[0] / o.counts[1] for o in outcomes},
        initial_loss=mean(o.initial_loss for o in outcomes),
        initial_grad_norm=mean(o.initial_grad_norm for o in outcomes),
        steps_to_mae=mean(reached) if len(reached) == len(steps) else None,
    )


def _steps_to(curve: LoggedCurve, threshold: float) -> int | None:
    """Return the first step whose error is at most ``threshold``, or None if no error is."""
    pairs = zip(curve.steps, curve.values, strict=True)
    return next((step for step, value in pairs if value <= threshold), None)


def _ratio(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or bottom is None else round(top / bottom, 3)


def _result(
    rows: dict[str, ArmOutcome], outcomes: list[RunOutcome], minutes: float
) -> dict[str, object]:
    prior, without = rows["prior"], rows["no_prior"]
    result: dict[str, object] = {}
    for arm, row in rows.items():
        result |= {f"success_{arm}": row.success, f"success_{arm}_ci95": row.ci95}
        result[f"success_{arm}_by_seed"] = row.by_seed
    return result | {
        "rollouts": prior.rollouts,
        "seeds": sorted({o.run.seed for o in outcomes}),
        "initial_loss_ratio": _ratio(without.initial_loss, prior.initial_loss),
        "initial_grad_norm_ratio": _ratio(without.initial_grad_norm, prior.initial_grad_norm),
        "steps_to_mae_ratio": _ratio(without.steps_to_mae, prior.steps_to_mae),
        "minutes": round(minutes, 1),
    }


def _print(
    rows: dict[str, ArmOutcome],
    outcomes: list[RunOutcome],
    threshold: float,
    demonstrations: int,
    steps: int,
) -> None:
    from rich.console import Console
    from rich.table import Table

    seeds = sorted({o.run.seed for o in outcomes})
    table = Table(
        title=f"{demonstrations} demonstrations per task, {steps} steps, seeds {seeds}",
        caption=f"initial: mean of the first {FIRST} steps; MAE: worst final error without prior",
    )
    table.add_column("arm")
    for name in ("success", "95 % interval", "rollouts", f"steps to MAE {threshold:.3f}"):
        table.add_column(name, justify="right")
    for name in ("initial loss", "initial grad norm"):
        table.add_column(name, justify="right")
    for arm, row in rows.items():
        low, high = row.ci95
        reached = row.steps_to_mae
        table.add_row(
            LABELS[arm],
            f"{100 * row.success:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f} %",
            str(row.rollouts),
            "not reached" if reached is None else f"{reached:.0f}",
            f"{row.initial_loss:.2f}",
            f"{row.initial_grad_norm:.2f}",
        )
    Console(width=120).print(table)
    for outcome in outcomes:
        parts = ", ".join(f"{e.split('/')[-1]} {w}/{n}" for e, (w, n) in outcome.success.items())
        print(f"{LABELS[outcome.run.arm]}, seed {outcome.run.seed}: {parts}")


def _draw(
    outcomes: list[RunOutcome],
    rows: dict[str, ArmOutcome],
    path: Path,
    demonstrations: int,
    steps: int,
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4), width_ratios=(3, 2), layout="constrained"
    )
    _draw_curves(left, outcomes)
    _draw_successes(right, rows)
    seeds = len({o.run.seed for o in outcomes})
    figure.suptitle(
        f"{demonstrations} demonstrations per task, {steps} steps, {seeds} seed(s); bars: 95 %"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_curves(axis: "Axes", outcomes: list[RunOutcome]) -> None:
    """Plot the action error of every run over its steps, with one legend entry per arm."""
    for arm in dict.fromkeys(o.run.arm for o in outcomes):
        for k, outcome in enumerate(o for o in outcomes if o.run.arm == arm):
            axis.plot(
                outcome.mae.steps,
                outcome.mae.values,
                color=COLOURS[arm],
                label=LABELS[arm] if k == 0 else None,
                marker=".",
                linewidth=1.8,
            )
    axis.set(
        xlabel="Stage-2 steps",
        ylabel="held-out action error (normalized per slot)",
        ylim=(0, None),
    )
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_successes(axis: "Axes", rows: dict[str, ArmOutcome]) -> None:
    """Draw a bar per arm with its success rate and confidence interval."""
    for x, (arm, row) in enumerate(rows.items()):
        (low, high), rate = row.ci95, row.success
        axis.bar(x, 100 * rate, color=COLOURS[arm], width=0.6)
        error = [[100 * (rate - low)], [100 * (high - rate)]]
        axis.errorbar(x, 100 * rate, yerr=error, color="black", capsize=5)
        axis.text(x, 100 * high + 2, f"{100 * rate:.1f} %", ha="center")
    axis.set_xticks(range(len(rows)), [LABELS[arm] for arm in rows])
    axis.set(ylabel="success over four tasks [%]", ylim=(0, 110))
    axis.spines[["top", "right"]].set_visible(False)


def _copy_film(runs: Sequence[DemoRun], path: Path) -> None:
    films = [f for r in runs if r.arm == "prior" for f in r.log_dir.rglob("*_success.mp4")]
    if films:
        # A success in the longest task shows the most.
        tasks = ("Reach", "Lift", "Push", "Place")
        best = max(films, key=lambda film: [task in film.name for task in tasks[::-1]])
        shutil.copyfile(best, path)
