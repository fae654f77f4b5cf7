"""Short training runs on data in memory, timed and counted, for the training benchmarks."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from actionprior.batch import Observation, VLABatch
from actionprior.data import EmbodiedDataModule, Frames
from actionprior.data.frame_ranges import Spans
from actionprior.data.store import Recording, TrajectoryStore
from actionprior.embodiment import Embodiment
from bench.timing import median_seconds


@dataclass(frozen=True)
class ShortRun:
    """Sizes of a short run, and how many of its steps are timed."""

    batch_size: int  # windows per process and batch
    steps: int  # timed
    device: str  # cpu or cuda
    precision: str
    warm: int = 10  # steps before the timed ones
    accumulate: int = 1  # batches per step

    @property
    def total(self) -> int:
        """Number of steps, warm-up included."""
        return self.warm + self.steps


class SyntheticTrajectories(EmbodiedDataModule):
    """Windows of a random walk of one arm, in memory."""

    @property
    def embodiments(self) -> list[Embodiment]:
        """Return one arm of seven joints."""
        from actionprior.envs.embodiments import suite_embodiment

        return [suite_embodiment("panda")]

    def read_frames(self) -> Frames:
        """Generate 200 episodes of 120 steps."""
        robot, episodes, length = self.embodiments[0], 200, 120
        rng = np.random.default_rng(0)
        shape = (episodes * length, len(robot.state_features))
        state = np.cumsum(rng.normal(size=shape), 0, dtype=np.float32)
        action = rng.normal(size=(len(state), len(robot.action_features))).astype(np.float32)
        lengths = np.full(episodes, length, np.int64)
        store = TrajectoryStore([robot], [(0, Recording(action, state, lengths))])
        everything = np.ones(len(store), dtype=bool)
        return Frames(store, Spans.where(everything), Spans.where(~everything))


class SyntheticVLA(SyntheticTrajectories):
    """The same windows with noise images of two cameras and with four instructions."""

    def __init__(self, pixels: int = 224, **options: Any) -> None:  # noqa: ANN401  EmbodiedDataModule's
        super().__init__(**options)
        self.pixels = pixels

    def windows(self, training: bool) -> "_NoiseImages":
        """Return observations with the chunks that follow."""
        return _NoiseImages(self)


class _NoiseImages(Dataset[VLABatch]):
    def __init__(self, data: SyntheticVLA) -> None:
        self.store, self.data = data.frames.store, data
        shape = (data.batch_size, 2, 3, data.pixels, data.pixels)
        self.images_BCKYX = torch.randint(256, shape, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.store)

    def __getitems__(self, frames: Sequence[int]) -> VLABatch:
        at = torch.as_tensor(frames)
        future = self.store.future(at, self.data.chunk_length)
        return VLABatch(
            Observation(
                self.images_BCKYX[: len(at)],
                torch.ones(len(at), 2, dtype=torch.bool),
                [f"move the cube to pad {number % 4}" for number in range(len(at))],
                future.state_BHS[:, 0],
                future.reference_BA,
                self.store.history(at, self.data.history_length),
                future.embodiment_B,
            ),
            future,
        )


class Clock(Callback):
    """Measure seconds per timed step, the last loss, and the peak memory."""

    def __init__(self, run: ShortRun, barrier: Any = None) -> None:  # noqa: ANN401  multiprocessing's has no type
        self.run, self.barrier = run, barrier
        self.began, self.seconds, self.loss = 0.0, 0.0, 0.0
        self.held_bytes = self.most_bytes = 0  # between two steps, and the peak; on a GPU

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Read the clock at the first and the last timed step."""
        if trainer.global_step == self.run.warm and not self.began:
            if self.barrier is not None:
                self.barrier.wait()
            if self.run.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            self.began = now(self.run.device)
        elif trainer.global_step == self.run.total:
            self.seconds = (now(self.run.device) - self.began) / self.run.steps
            self.loss = float(trainer.callback_metrics["train/loss"])
            if self.run.device == "cuda":
                self.most_bytes = torch.cuda.max_memory_allocated()
                trainer.optimizers[0].zero_grad()
                self.held_bytes = torch.cuda.memory_allocated()


class Products(Callback):
    """Count the matrix operations of a run's first batch, forward and backward."""

    def __init__(self) -> None:
        self.counter, self.flops = FlopCounterMode(display=False), 0

    def on_train_batch_start(self, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Start counting."""
        if not self.flops:
            self.counting = ExitStack()
            self.counting.enter_context(self.counter)

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Stop counting."""
        if not self.flops:
            self.counting.close()
            self.flops = int(self.counter.get_total_flops())


def trainer(run: ShortRun, folder: str, callbacks: list[Callback], **options: Any) -> Trainer:  # noqa: ANN401  Lightning's
    """Return a Trainer with the recipes' settings, without output and checkpoints."""
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu" if run.device == "cpu" else "gpu",
        precision=cast(Any, run.precision),
        max_steps=run.total,
        accumulate_grad_batches=run.accumulate,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=callbacks,
        **options,
    )


def now(device: str) -> float:
    """Return the time [s] after the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: str, precision: str) -> float:
    """Measure the operations per second of one large matrix product."""
    edge = 1024 if device == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = torch.randn(2, edge, edge, device=device, dtype=dtype)

    def product() -> float:
        a @ b
        return now(device)

    return float(2 * edge**3 / median_seconds(15, product)[0])
