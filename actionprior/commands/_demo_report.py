"""What the demo found: a table, learning curves, a film and one line of JSON.

All figures are read back from the runs' TensorBoard events and ``results.json`` files.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from actionprior.errors import UserError
from actionprior.files.atomic import write_json
from actionprior.rollout import wilson_interval

LABELS = {"prior": "with the prior", "no_prior": "no prior", "shuffled": "time-shuffled prior"}
COLOURS = {"prior": "#1b6ca8", "no_prior": "#c8553d", "shuffled": "#8a8a8a"}
FIRST = 10  # steps whose mean is called initial: one batch alone is noisy


class Run(NamedTuple):
    """One finished Stage-2 run."""

    arm: str
    seed: int
    folder: Path

    @property
    def log_dir(self) -> Path:
        """Where its events and rollouts are."""
        return self.folder / "lightning_logs" / "version_0"

    @property
    def rollouts(self) -> list[Path]:
        """Results of its rollouts, the last ones at the end; empty before a run is finished."""
        return sorted(self.log_dir.glob("rollouts/step_*/results.json"))

    @property
    def finished(self) -> bool:
        """Rollouts come last."""
        return bool(self.rollouts)


class Curve(NamedTuple):
    """A logged scalar."""

    steps: list[int]
    values: list[float]


class Outcome(NamedTuple):
    """What one run reached."""

    run: Run
    mae: Curve
    initial_loss: float
    initial_grad_norm: float
    success: dict[str, tuple[int, int]]  # environment → successes, rollouts

    @property
    def counts(self) -> tuple[int, int]:
        """Successes and rollouts over all environments."""
        won, played = zip(*self.success.values(), strict=True)
        return sum(won), sum(played)


class Row(NamedTuple):
    """What an arm reached over its seeds."""

    success: float
    ci95: tuple[float, float]
    rollouts: int
    by_seed: dict[int, float]
    initial_loss: float
    initial_grad_norm: float
    steps_to_mae: float | None  # None: some run never got there


def report(
    runs: Sequence[Run], folder: Path, demonstrations: int, steps: int, minutes: float
) -> None:
    """Print the table, draw ``demo.png``, keep one film, and print the ``RESULT`` line."""
    outcomes = [_read(run) for run in runs]
    arms = list(dict.fromkeys(run.arm for run in runs))
    # The worst of them: an average is one that some run never reaches.
    threshold = max(o.mae.values[-1] for o in outcomes if o.run.arm == "no_prior")
    rows = {arm: _row([o for o in outcomes if o.run.arm == arm], threshold) for arm in arms}
    _print(rows, outcomes, threshold, demonstrations, steps)
    _draw(outcomes, rows, folder / "demo.png", demonstrations, steps)
    _keep_film(runs, folder / "success.mp4")
    result = _result(rows, outcomes, minutes)
    write_json(result, folder / "result.json")
    print(f"picture {folder / 'demo.png'}, film {folder / 'success.mp4'}")
    print("RESULT " + json.dumps(result), flush=True)


def _read(run: Run) -> Outcome:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.log_dir), size_guidance={"scalars": 0})
    events.Reload()

    def curve(tag: str) -> Curve:
        scalars = events.Scalars(tag)
        return Curve([s.step for s in scalars], [s.value for s in scalars])

    if not run.finished:
        raise UserError(f"{run.log_dir} holds no rollouts; expected the end of a finished run")
    found = json.loads(run.rollouts[-1].read_text())["environments"]
    return Outcome(
        run,
        curve("val/mae_normalized"),
        mean(curve("train/loss_pred").values[:FIRST]),
        mean(curve("train/grad_norm").values[:FIRST]),
        {
            e["env_id"]: (sum(x["success"] for x in e["episodes"]), len(e["episodes"]))
            for e in found
        },
    )


def _row(outcomes: list[Outcome], threshold: float) -> Row:
    won, played = (sum(counts) for counts in zip(*(o.counts for o in outcomes), strict=True))
    steps = [_steps_to(o.mae, threshold) for o in outcomes]
    reached = [s for s in steps if s is not None]
    return Row(
        success=won / played,
        ci95=wilson_interval(won, played),
        rollouts=played,
        by_seed={o.run.seed: o.counts[0] / o.counts[1] for o in outcomes},
        initial_loss=mean(o.initial_loss for o in outcomes),
        initial_grad_norm=mean(o.initial_grad_norm for o in outcomes),
        steps_to_mae=mean(reached) if len(reached) == len(steps) else None,
    )


def _steps_to(curve: Curve, threshold: float) -> int | None:
    """Steps until the error is first at or below ``threshold``; None: never."""
    pairs = zip(curve.steps, curve.values, strict=True)
    return next((step + 1 for step, value in pairs if value <= threshold), None)


def _ratio(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or bottom is None else round(top / bottom, 3)


def _result(rows: dict[str, Row], outcomes: list[Outcome], minutes: float) -> dict[str, object]:
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
    rows: dict[str, Row],
    outcomes: list[Outcome],
    threshold: float,
    demonstrations: int,
    steps: int,
) -> None:
    from rich.console import Console
    from rich.table import Table

    seeds = sorted({o.run.seed for o in outcomes})
    table = Table(
        title=f"{demonstrations} demonstrations a task, {steps} steps, seeds {seeds}",
        caption=f"initial: mean of the first {FIRST} steps; MAE: no prior's worst final one",
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
    outcomes: list[Outcome],
    rows: dict[str, Row],
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
    for arm in rows:
        for k, outcome in enumerate(o for o in outcomes if o.run.arm == arm):
            label = LABELS[arm] if k == 0 else None
            left.plot(*outcome.mae, color=COLOURS[arm], label=label, marker=".", linewidth=1.8)
    left.set(
        xlabel="Stage-2 steps",
        ylabel="held-out action error (of each slot's scale)",
        ylim=(0, None),
    )
    left.legend(frameon=False)
    for x, (arm, row) in enumerate(rows.items()):
        (low, high), rate = row.ci95, row.success
        right.bar(x, 100 * rate, color=COLOURS[arm], width=0.6)
        error = [[100 * (rate - low)], [100 * (high - rate)]]
        right.errorbar(x, 100 * rate, yerr=error, color="black", capsize=5)
        right.text(x, 100 * high + 2, f"{100 * rate:.1f} %", ha="center")
    right.set_xticks(range(len(rows)), [LABELS[arm] for arm in rows])
    right.set(ylabel="success over four tasks [%]", ylim=(0, 110))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    seeds = len({o.run.seed for o in outcomes})
    figure.suptitle(
        f"{demonstrations} demonstrations a task, {steps} steps, {seeds} seed(s); bars: 95 % Wilson"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _keep_film(runs: Sequence[Run], path: Path) -> None:
    films = [f for r in runs if r.arm == "prior" for f in r.log_dir.rglob("*_success.mp4")]
    if films:
        # The longest task's success shows the most.
        tasks = ("Reach", "Lift", "Push", "Place")
        best = max(films, key=lambda film: [task in film.name for task in tasks[::-1]])
        shutil.copyfile(best, path)
