"""What a run wrote: TensorBoard events and the rollouts' ``results.json``, read back."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from actionprior.study.grid import CURVE, ROLLOUTS
from actionprior.study.recipe import Recipe, StudyError, member

NORMALIZED = "val/mae_normalized"
FIRST = 10  # steps whose mean is called initial: one batch alone is noisy


class Curve(NamedTuple):
    """A logged scalar: steps done when it was measured, values, wall-clock times [s]."""

    steps: list[int]
    values: list[float]
    times_s: list[float]


class Measurement(NamedTuple):
    """The part of a table's row that one run tells by itself."""

    step: int
    task: str
    robot: str
    outcomes: str
    first_scene: int
    latency_ms: float
    val_mae: float
    # Of a feature group; runs that finished before these were measured have none of it.
    group: str = ""
    unit: str = ""
    mae: float = math.nan
    bend: float = math.nan
    bend_recorded: float = math.nan


class Measured(NamedTuple):
    """A Stage-2 run."""

    initial_loss: float
    initial_grad_norm: float
    seconds_per_step: float
    measurements: list[Measurement]


def measure(folder: Path, recipe: Recipe) -> Measured:
    """Read a finished Stage-2 run.

    Args:
        folder: its ``default_root_dir``.
        recipe: what it ran.

    Raises:
        StudyError: logs or rollouts are missing.
    """
    log_dir = folder / "lightning_logs" / "version_0"
    curves = read_curves(log_dir)
    loss, norm, mae = (curves[tag] for tag in ("train/loss_pred", "train/grad_norm", NORMALIZED))
    if not loss.values:
        raise StudyError(f"{log_dir} holds no train/loss_pred; expected the logs of a fit")
    errors = dict(zip(mae.steps, mae.values, strict=True))
    found = [
        Measurement(step, "", "", "", 0, math.nan, value) for step, value in sorted(errors.items())
    ]
    played = member(recipe, ROLLOUTS) is not None
    groups = sorted(_groups(curves, recipe), key=lambda m: m.step)
    # Beside rollouts the last validation is enough, and keeps the table small.
    found += [m for m in groups if not played or m.step == groups[-1].step]
    found += _rollouts(log_dir, recipe, errors)
    if played and not any(m.outcomes for m in found):
        raise StudyError(f"{log_dir} holds no rollouts; expected the end of a finished run")
    return Measured(
        mean(loss.values[:FIRST]),
        mean(norm.values[:FIRST]) if norm.values else math.nan,
        seconds_per_step(loss),
        found,
    )


def stage1_seconds(folder: Path, steps: int) -> float:
    """Training time [s] of a Stage-1 run of so many steps; NaN where it logged too little."""
    curves = read_curves(folder / "lightning_logs" / "version_0")
    return steps * seconds_per_step(curves["train/loss"])


def seconds_per_step(curve: Curve) -> float:
    """Median wall-clock time of a step [s]: pauses for validation and rollouts do not count."""
    pairs = zip(curve.steps, curve.times_s, strict=True)
    points = sorted(pairs)
    rates = [(t - t0) / (k - k0) for (k0, t0), (k, t) in pairwise(points) if k > k0 and t >= t0]
    return median(rates) if rates else math.nan


def read_curves(log_dir: Path) -> defaultdict[str, Curve]:
    """Scalars of a run's TensorBoard events; a tag that was never logged is an empty curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not log_dir.is_dir():
        raise StudyError(f"{log_dir} is not here; expected the logs of a fit")
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})
    events.Reload()
    result: defaultdict[str, Curve] = defaultdict(lambda: Curve([], [], []))
    for tag in sorted(events.Tags()["scalars"]):
        scalars = events.Scalars(tag)
        # Lightning counts from 0: what is logged at k was measured after k + 1 steps.
        result[tag] = Curve(
            [s.step + 1 for s in scalars],
            [float(s.value) for s in scalars],
            [float(s.wall_time) for s in scalars],
        )
    return result


def _groups(curves: defaultdict[str, Curve], recipe: Recipe) -> Iterator[Measurement]:
    """Of each robot's feature groups, logged as ``val/<robot>/mae_<group>_<unit>`` and alike."""
    data = recipe.get("data", {})
    robots = data.get("init_args", data).get("embodiments") or []
    named = {group["name"] for robot in robots for group in robot["action"]}
    for tag, error in list(curves.items()):
        robot, _, key = tag.removeprefix("val/").rpartition("/mae_")
        if not robot or not tag.startswith("val/"):
            continue
        group, _, unit = key.rpartition("_")
        if not group or key in named:  # it has no unit
            group, unit = key, ""
        bend, recorded = (
            dict(zip(curve.steps, curve.values, strict=True))
            for curve in (curves[f"val/{robot}/bend_{k}_{key}"] for k in ("predicted", "recorded"))
        )
        for step, value in zip(error.steps, error.values, strict=True):
            yield Measurement(
                step=step,
                task="",
                robot=robot,
                outcomes="",
                first_scene=0,
                latency_ms=math.nan,
                val_mae=math.nan,
                group=group,
                unit=unit,
                mae=value,
                bend=bend.get(step, math.nan),
                bend_recorded=recorded.get(step, math.nan),
            )


def _rollouts(log_dir: Path, recipe: Recipe, errors: dict[int, float]) -> Iterator[Measurement]:
    settings = (member(recipe, ROLLOUTS) or {}).get("init_args", {})
    robots = settings.get("embodiment", "")
    files = {}
    # The final rollouts, which are more, come last and win.
    for tag in (CURVE, settings.get("tag", "rollout")):
        for file in sorted(log_dir.glob(f"{tag}s/step_*/results.json")):
            told: dict[str, Any] = json.loads(file.read_text("utf-8"))
            files[int(told["step"])] = told
    for step, told in sorted(files.items()):
        for environment in told["environments"]:
            task, episodes = environment["env_id"], environment["episodes"]
            yield Measurement(
                step,
                task,
                robots.get(task, "") if isinstance(robots, dict) else robots,
                "".join("01"[e["success"]] for e in episodes),
                int(episodes[0]["seed"]),
                median(e["latency_ms"] for e in episodes),
                errors.get(step, math.nan),
            )
