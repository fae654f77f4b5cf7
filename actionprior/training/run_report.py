"""Report what a run trains on when it starts, and what came out of it when it ends."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, override

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from actionprior.data import EmbodiedDataModule, Frames
from actionprior.data.frame_ranges import BoolArray, Spans
from actionprior.training.metrics import BASELINES


class RunReport(Callback):
    """Print the data and the model when ``fit`` starts, errors and checkpoints when it ends.

    Args:
        stage: Stage of the module, 1 or 2.
    """

    def __init__(self, stage: int) -> None:
        self.stage = stage
        self._started = self._validated = 0.0
        self._first_step: int | None = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print robots, episodes, frames, hours, device and parameters."""
        self._started, self._validated, self._first_step = time.monotonic(), -1, None
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, EmbodiedDataModule):
            print(start_report(trainer, pl_module, data))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_step = time.monotonic(), trainer.global_step

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step of the latest errors."""
        if not trainer.sanity_checking:
            self._validated = trainer.global_step

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print held-out errors beside baselines, the checkpoints and what to run next."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]  # untyped
            return
        if self._first_step is None:
            limit = "max_steps" if trainer.max_steps >= 0 else "max_epochs"
            reason = (
                f"the checkpoint is at step {trainer.global_step:,} already, and trainer.{limit} "
                f"is {getattr(trainer, limit):,}"
            )
            none = f"trainer.limit_train_batches is {trainer.limit_train_batches}"
            print(f"nothing was trained: {reason if trainer.global_step else none}")
            return
        seconds = time.monotonic() - self._started
        steps = trainer.global_step - self._first_step
        lines = [
            f"trained {steps:,.0f} steps in {seconds / 60:.1f} min "
            f"({steps / max(seconds, 1e-9):.1f} steps/s)"
        ]
        metrics = trainer.callback_metrics
        if table := held_out_table(metrics, "prior" if self.stage == 1 else "policy"):
            lines.append(table)
            if 0 <= self._validated < trainer.global_step:
                lines.append(f"these errors are of step {self._validated:,.0f}")
        else:
            lines.append(
                "no held-out error was measured: give trainer.val_check_interval a value within "
                "the run, and data.val_fraction one above 0"
            )
        lines += success_lines(metrics)
        lines += checkpoint_lines(trainer, self.stage)
        print("\n".join(lines))


def start_report(trainer: Trainer, module: LightningModule, data: EmbodiedDataModule) -> str:
    """Describe model, device and data in a few lines."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained = sum(size for size, trains in sizes if trains)
    # The shorter of max_steps and max_epochs ends a run.
    length = f"{int(trainer.estimated_stepping_batches):,} steps"
    processes = f" in each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
    name = 1 + max(len(robot.name) for robot in data.embodiments)
    head = f"{'robot':<{name}}{'episodes':>10}{'held out':>10}{'frames':>14}{'hours':>9}"
    return "\n".join(
        [
            f"{type(module).__name__}: {sum(size for size, _ in sizes):,} parameters, of which "
            f"{trained:,} train, on {module.device} in {trainer.precision}",
            f"{length} of {data.batch_size} windows{processes}",
            head,
            *(f"{robot:<{name}}{rest}" for robot, rest in _contents(data)),
        ]
    )


def _contents(data: EmbodiedDataModule) -> Iterator[tuple[str, str]]:
    frames: Frames = data.frames
    store = frames.store
    trains_E, validates_E = (_touched(s, store.start_E, store.stop_E) for s in frames[1:])
    length_E = store.stop_E - store.start_E
    for index, robot in enumerate(data.embodiments):
        mine_E = np.zeros(len(length_E), dtype=np.bool_)
        for part in store.of_embodiment(index):
            mine_E |= (store.start_E >= part.start) & (store.stop_E <= part.stop)
        count = int(length_E[mine_E & (trains_E | validates_E)].sum())
        hours = count / robot.control_hz / 3600
        yield (
            robot.name,
            f"{int((mine_E & trains_E).sum()):>10,}{int((mine_E & validates_E).sum()):>10,}"
            f"{count:>14,}{hours:>9.2f}",
        )


def _touched(spans: Spans, start_E: Any, stop_E: Any) -> BoolArray:  # noqa: ANN401  int64 (E,)
    """Find the episodes that contain a frame of a set."""
    if not len(spans.start_K):
        return np.zeros(len(start_E), dtype=np.bool_)
    after_E = np.searchsorted(spans.stop_K, start_E, side="right")
    first_E = spans.start_K[after_E.clip(max=len(spans.start_K) - 1)]
    return cast(BoolArray, (after_E < len(spans.start_K)) & (first_E < stop_E))


def held_out_table(metrics: Mapping[str, Tensor], name: str) -> str:
    """Format held-out errors and the baselines as a table; empty if there was no validation.

    Args:
        metrics: Logged values.
        name: Heading of the errors' column.
    """
    lines, titles, worse = [], [name], []
    for key, value in metrics.items():
        split, _, rest = key.partition("/")
        robot, _, error = rest.partition("/")
        if split == "val" and error.startswith("mae_"):
            keys = [f"val/{robot}/{baseline}_{error}" for baseline in BASELINES]
            titles = [name, *(b for b, k in zip(BASELINES, keys, strict=True) if k in metrics)]
            values = [float(value), *(float(metrics[k]) for k in keys if k in metrics)]
            figures = "".join(f"{v:>14.4f}" for v in values)
            lines.append(f"{robot + ' ' + error:<44}{figures}")
            if len(values) > 1 and values[0] >= values[1]:
                worse.append(f"{robot} {error.removeprefix('mae_')}")
    if not lines:
        return ""
    head = f"{'held-out mean absolute error':<44}" + "".join(f"{title:>14}" for title in titles)
    if worse:
        lines.append(
            f"not better than copying one action: {', '.join(worse)}; train longer, or ask "
            "`lightning doctor` about the recordings"
        )
    return "\n".join([head, *lines])


def success_lines(metrics: Mapping[str, Tensor]) -> list[str]:
    """List the success rates of the latest rollouts."""
    return [
        f"success in {key.removesuffix('/success_rate').partition('/')[2]}: {float(value):.0%}"
        for key, value in metrics.items()
        if key.endswith("/success_rate") and key.count("/") > 1
    ]


def checkpoint_lines(trainer: Trainer, stage: int) -> list[str]:
    """Say where the newest and the best checkpoint are, and what to run next."""
    saved = [
        (callback._last_global_step_saved, callback._last_checkpoint_saved, callback)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback._last_checkpoint_saved
    ]
    if not saved:
        return ["no checkpoint was saved"]
    step, newest = max(
        ((step, path) for step, path, callback in reversed(saved) if callback.monitor is None),
        key=lambda entry: entry[0],
        default=saved[-1][:2],
    )
    lines = [f"checkpoint: {_short(newest)} (step {step:,})"]
    for _, _, callback in saved:
        if callback.monitor is not None and callback.best_model_score is not None:
            score = float(callback.best_model_score)
            lines.append(f"best {callback.monitor} {score:.4g}: {_short(callback.best_model_path)}")
    path = _short(newest)
    if stage == 1:
        lines.append(
            "next, Stage 2: lightning fit --config RECIPE.yaml --model.prior_checkpoint "
            f"{path} (for a recipe of `lightning describe`, RECIPE.yaml is this run's, with "
            "--config recipes/stack/vla.yaml behind it)"
        )
    else:
        lines += [
            f"next: lightning diagnose --config RECIPE.yaml --ckpt_path {path}",
            f"      lightning export --ckpt_path {path} --out FOLDER",
            f"      lightning serve --ckpt_path {path}",
        ]
    return lines


def _short(path: str) -> str:
    """Return a path from the working folder on, if it lies below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
