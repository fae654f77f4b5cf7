"""Short training runs in memory, timed and counted, for the benchmarks of training."""

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
class Run:
    """A short run: what it is given, and how many of its steps are timed."""

    batch_size: int  # windows a process and batch
    steps: int  # timed
    device: str  # cpu or cuda
    precision: str
    warm: int = 10  # steps before those
    accumulate: int = 1  # batches a step

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.warm + self.steps


class SyntheticTrajectories(EmbodiedDataModule):
    """Windows of a random walk of one arm, in memory."""

    @property
    def embodiments(self) -> list[Embodiment]:
        """One arm of seven joints."""
        from actionprior.envs.embodiments import suite_embodiment

        return [suite_embodiment("panda")]

    def read_frames(self) -> Frames:
        """Two hundred episodes of 120 steps."""
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
    """The same with noise for two cameras, the same in each batch, and four instructions."""

    def __init__(self, pixels: int = 224, **options: Any) -> None:  # noqa: ANN401  EmbodiedDataModule's
        super().__init__(**options)
        self.pixels = pixels

    def windows(self, training: bool) -> "_Seen":
        """Observations and what follows."""
        return _Seen(self)


class _Seen(Dataset[VLABatch]):
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
    """Seconds a step of the steps that are timed, the last loss, and the most memory meanwhile."""

    def __init__(self, run: Run, barrier: Any = None) -> None:  # noqa: ANN401  multiprocessing's has no type
        self.run, self.barrier = run, barrier
        self.began, self.seconds, self.loss = 0.0, 0.0, 0.0
        self.held_bytes = self.most_bytes = 0  # between two steps, and at most; on a GPU

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Read the clock at the two steps."""
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
    """Counts the operations of the matrix products of a run's first batch, forward and back."""

    def __init__(self) -> None:
        self.counter, self.flops = FlopCounterMode(display=False), 0

    def on_train_batch_start(self, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Count from here."""
        if not self.flops:
            self.counting = ExitStack()
            self.counting.enter_context(self.counter)

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """To here."""
        if not self.flops:
            self.counting.close()
            self.flops = int(self.counter.get_total_flops())


def trainer(run: Run, folder: str, callbacks: list[Callback], **options: Any) -> Trainer:  # noqa: ANN401  Lightning's
    """A Trainer as the recipes have it, that shows and keeps nothing."""
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
    """Seconds, when what the device was told is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: str, precision: str) -> float:
    """Operations a second of one large matrix product."""
    edge = 1024 if device == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = torch.randn(2, edge, edge, device=device, dtype=dtype)

    def product() -> float:
        a @ b
        return now(device)

    return float(2 * edge**3 / median_seconds(15, product)[0])
