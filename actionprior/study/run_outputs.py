"""Outputs of a run: TensorBoard events and ``results.json`` of rollouts."""

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
FIRST = 10  # steps averaged as "initial" values, since a single batch is noisy


class LoggedCurve(NamedTuple):
    """A logged scalar: steps done at each measurement, values, wall-clock times [s]."""

    steps: list[int]
    values: list[float]
    times_s: list[float]


class Measurement(NamedTuple):
    """Columns of a table row that a single run provides."""

    step: int
    task: str
    robot: str
    outcomes: str
    first_scene: int
    latency_ms: float
    val_mae: float
    # Of a feature group. Runs that finished before these columns existed have none.
    group: str = ""
    unit: str = ""
    mae: float = math.nan
    bend: float = math.nan
    bend_recorded: float = math.nan


class RunMeasurements(NamedTuple):
    """Measurements of a Stage-2 run."""

    initial_loss: float
    initial_grad_norm: float
    seconds_per_step: float
    measurements: list[Measurement]


def measure(folder: Path, recipe: Recipe) -> RunMeasurements:
    """Read a finished Stage-2 run.

    Args:
        folder: ``default_root_dir`` of the run.
        recipe: Recipe of the run.

    Raises:
        StudyError: Logs or rollouts are missing.
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
    # With rollouts, the last validation is enough and keeps the table small.
    found += [m for m in groups if not played or m.step == groups[-1].step]
    found += _rollouts(log_dir, recipe, errors)
    if played and not any(m.outcomes for m in found):
        raise StudyError(f"{log_dir} holds no rollouts; expected the end of a finished run")
    return RunMeasurements(
        mean(loss.values[:FIRST]),
        mean(norm.values[:FIRST]) if norm.values else math.nan,
        seconds_per_step(loss),
        found,
    )


def stage1_seconds(folder: Path, steps: int) -> float:
    """Estimate the training time [s] of a Stage-1 run; NaN if it logged too few steps."""
    curves = read_curves(folder / "lightning_logs" / "version_0")
    return steps * seconds_per_step(curves["train/loss"])


def seconds_per_step(curve: LoggedCurve) -> float:
    """Return the median wall-clock time of a step [s], unaffected by validation and rollouts."""
    pairs = zip(curve.steps, curve.times_s, strict=True)
    points = sorted(pairs)
    rates = [(t - t0) / (k - k0) for (k0, t0), (k, t) in pairwise(points) if k > k0 and t >= t0]
    return median(rates) if rates else math.nan


def read_curves(log_dir: Path) -> defaultdict[str, LoggedCurve]:
    """Read the scalars of a run's TensorBoard events; a tag without events is an empty curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not log_dir.is_dir():
        raise StudyError(f"{log_dir} does not exist; expected the logs of a fit")
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})
    events.Reload()
    result: defaultdict[str, LoggedCurve] = defaultdict(lambda: LoggedCurve([], [], []))
    for tag in sorted(events.Tags()["scalars"]):
        scalars = events.Scalars(tag)
        # Lightning counts from 0: a value logged at k was measured after k + 1 steps.
        result[tag] = LoggedCurve(
            [s.step + 1 for s in scalars],
            [float(s.value) for s in scalars],
            [float(s.wall_time) for s in scalars],
        )
    return result


def _groups(curves: defaultdict[str, LoggedCurve], recipe: Recipe) -> Iterator[Measurement]:
    """Yield errors of feature groups, logged as ``val/<robot>/mae_<group>_<unit>`` and similar."""
    data = recipe.get("data", {})
    robots = data.get("init_args", data).get("embodiments") or []
    named = {group["name"] for robot in robots for group in robot["action"]}
    for tag, error in list(curves.items()):
        robot, _, key = tag.removeprefix("val/").rpartition("/mae_")
        if not robot or not tag.startswith("val/"):
            continue
        group, _, unit = key.rpartition("_")
        if not group or key in named:  # the group has no unit
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
    # Final rollouts come last and replace those of the curve: they have more episodes.
    for tag in (CURVE, settings.get("tag", "rollout")):
        for file in sorted(log_dir.glob(f"{tag}s/step_*/results.json")):
            content: dict[str, Any] = json.loads(file.read_text("utf-8"))
            files[int(content["step"])] = content
    for step, content in sorted(files.items()):
        for environment in content["environments"]:
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
