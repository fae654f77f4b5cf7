"""The DataModule contract: what the two stages' models ask of data.

A data set of your own is a subclass that gives ``embodiments`` and, in ``setup``, the frames;
``data_modules/trajectories.py`` is one to imitate.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from actionprior.batch import TrajectoryBatch
from actionprior.data.column_store import Column
from actionprior.data.frame_ranges import Spans
from actionprior.data.sampling import EpochOrder, ShardedBatches
from actionprior.data.store import Recording, TrajectoryStore, TrajectoryWindows
from actionprior.embodiment import Embodiment
from actionprior.errors import UserError

Batch_co = TypeVar("Batch_co", covariant=True)
LISTED = 20  # episodes of a batch and recording that a message lists


class DataError(UserError):
    """Data cannot be used as they are; the message names the place and what to do.

    Args:
        message: one sentence.
        feature, episode, frame: the place again, for reports, where it is one place.
    """

    def __init__(
        self, message: str, *, feature: str = "", episode: int = -1, frame: int = -1
    ) -> None:
        super().__init__(message)
        self.feature, self.episode, self.frame = feature, episode, frame


class BatchSource(Protocol[Batch_co]):
    """A data set that gathers whole batches: ``collate`` has nothing left to do."""

    def __len__(self) -> int: ...

    def __getitems__(self, frames: Sequence[int]) -> Batch_co: ...


class Frames(NamedTuple):
    """What ``setup`` reads: all frames, and at which of them windows start."""

    store: TrajectoryStore
    train: Spans
    val: Spans  # of other episodes than those of ``train``


@dataclass(frozen=True)
class Contents:
    """One dataset, whole, as a report examines it.

    Attributes:
        recording: its episodes as they were recorded.
        timestamp_N: float64 (N,) [s] from the episode's start; None: not known.
        task_N: int64 (N,), index into ``tasks``; None: there are no instructions.
        tasks: instructions.
        trust_rate: training goes on whatever the timestamps say of the frame rate.
        recorded_hz: the recording's own rate [Hz], where training resamples it to the robot's.
        absent_videos: episodes whose video its metadata name and the disk lacks, by camera.
        image_sizes: rows and columns of its cameras as recorded, by name.
    """

    recording: Recording
    timestamp_N: npt.NDArray[np.float64] | Column | None = None
    task_N: npt.NDArray[np.int64] | Column | None = None
    tasks: list[str] = field(default_factory=list)
    trust_rate: bool = False
    recorded_hz: float | None = None
    absent_videos: dict[str, list[int]] = field(default_factory=dict)
    image_sizes: dict[str, tuple[int, int]] = field(default_factory=dict)


class Source(NamedTuple):
    """A dataset that a report may open, apart from all others."""

    robot: Embodiment
    name: str
    read: Callable[[], Contents]  # raises DataError where training would refuse it


class EmbodiedDataModule(LightningDataModule, ABC):
    """Windows of several robots' trajectories, shuffled, sharded and resumable.

    Run it with ``Trainer(use_distributed_sampler=False)``: its batches are sharded already, in
    an order that depends on (seed, epoch, position) alone, and the position is saved in the
    checkpoint, so that a run resumed within an epoch goes on with the exact next batch; with
    another batch size or number of processes, with the exact next window.

    Args:
        chunk_length: steps H of an action chunk.
        history_length: past steps H_h that a policy may see.
        batch_size: windows a process and step.
        num_workers: loader processes; Stage 1 needs none.
        seed: of the split and of the order.
    """

    def __init__(
        self,
        chunk_length: int = 15,
        history_length: int = 15,
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("chunk_length", chunk_length), ("batch_size", batch_size)):
            if value < 1:
                raise DataError(f"{name} is {value}, expected at least 1")
        if history_length < 0:
            raise DataError(f"history_length is {history_length}, expected at least 0")
        self.chunk_length = chunk_length
        self.history_length = history_length
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._frames: Frames | None = None
        self._resume = (0, 0)
        self._uneven = (0, 0)
        self._training: ShardedBatches | None = None

    # ---- what a subclass gives --------------------------------------------------------------

    @property
    @abstractmethod
    def embodiments(self) -> list[Embodiment]:
        """The robots, known after ``__init__`` without reading data; their order is the index."""

    @abstractmethod
    def read_frames(self) -> Frames:
        """Read what training needs; called once, by ``setup``.

        Raises:
            DataError: the data cannot be used.
        """

    def sources(self) -> list[Source]:
        """The datasets, each to be examined apart; by default what ``setup`` has read.

        Raises:
            DataError: by default, where ``setup`` does.
        """
        self.setup("fit")
        store = self.frames.store
        return [
            Source(self.embodiments[robot], r.name or f"recording {number}", partial(Contents, r))
            for number, (robot, r) in enumerate(zip(store.robot_R, store.recordings, strict=True))
        ]

    def windows(self, training: bool) -> BatchSource[Any]:
        """The data set that turns frames into batches; Stage 1's by default."""
        return TrajectoryWindows(self.frames.store, self.chunk_length)

    def mixture(self, sizes: list[int]) -> list[int]:
        """How many windows of each embodiment make an epoch, of ``sizes`` that there are."""
        return sizes

    # ---- Lightning ----------------------------------------------------------------------------

    @property
    def frames(self) -> Frames:
        """What was read.

        Raises:
            DataError: before ``setup``.
        """
        if self._frames is None:
            raise DataError("the data are not read yet; call setup() first")
        return self._frames

    def setup(self, stage: str) -> None:
        """Read the data, once for all stages."""
        if self._frames is None:
            frames = self.read_frames()
            if len(frames.train) == 0:
                raise DataError("there is no training window; check the data and val_fraction")
            self._frames = frames

    def train_dataloader(self) -> DataLoader[Any]:
        """Whole batches, resumed where the loaded checkpoint stopped."""
        trainer = self.trainer
        overfit = trainer is not None and cast(Any, trainer).overfit_batches > 0
        groups = self._by_embodiment(self.frames.train)
        counts = self.mixture([len(group) for group in groups])
        order = EpochOrder(groups, counts, seed=self.seed, shuffle=not overfit)
        resume, self._resume = self._resume, (0, 0)
        return self._loader(order, training=True, resume=resume)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Every validation window once, in one order mixed over the robots."""
        if len(self.frames.val) == 0:
            return []
        order = EpochOrder(self._by_embodiment(self.frames.val), seed=self.seed, shuffle=False)
        return self._loader(order, training=False)

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """The validation windows; rollouts are a callback's business."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """The validation windows."""
        # The sampler that it speaks of gives every window.
        warnings.filterwarnings("ignore", message=".*custom batch sampler `ShardedBatches`.*")
        return self.val_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: the epoch and how many of its windows are seen."""
        if self.trainer is None:
            return {}
        loop: Any = self.trainer.fit_loop
        # The epoch that the order was told: Lightning's own counts of a resumed run lag behind.
        epoch = self._resume[0] if self._training is None else self._training.sampler.epoch
        done = loop.epoch_loop.batch_progress.current.processed
        if done >= self.trainer.num_training_batches:
            epoch, done = epoch + 1, 0
        uneven_epoch, uneven = self._uneven
        frames = done * self._global_batch() + (uneven if epoch == uneven_epoch else 0)
        return {"epoch": epoch, "frames": frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there."""
        if not state_dict:
            return
        frames = state_dict["frames"]
        self._resume = (state_dict["epoch"], frames)
        if self.trainer is not None:
            done, uneven = divmod(frames, self._global_batch())
            self._uneven = (state_dict["epoch"], uneven)
            cast(Any, self.trainer).callbacks.append(_RescaleProgress(done))
        # Lightning looks for a stateful loader only; this module keeps the position itself.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")

    # ---- for the models -----------------------------------------------------------------------

    def statistics_sample(self, max_windows: int = 20000) -> TrajectoryBatch:
        """Training windows from which a model fits its normaliser.

        Evenly spaced over each robot's training windows, equally many a robot as far as it has
        them; the same ones in every process and run. A robot that is held out is not trained
        on, but its errors need its units: its statistics are those of its validation windows.

        Raises:
            DataError: before ``setup``.
        """
        share = max(1, max_windows // len(self.embodiments))
        trained, held_out = map(self._by_embodiment, (self.frames.train, self.frames.val))
        chosen = [
            group.frames(np.linspace(0, len(group) - 1, min(share, len(group))).round().astype(int))
            for group in (t if len(t) else v for t, v in zip(trained, held_out, strict=True))
        ]
        return self._statistics_windows(torch.from_numpy(np.concatenate(chosen)))

    def _statistics_windows(self, frames_B: Tensor) -> TrajectoryBatch:
        return self.frames.store.future(frames_B, self.chunk_length)

    def batch_contents(self, batch_idx: int) -> str:
        """Whose windows this process's batch of the running epoch holds, for messages.

        Robot, recording and episodes, by their numbers in the recording; empty before training.
        """
        if self._training is None:
            return ""
        frame_B = self._training.training_batch(batch_idx)
        store, found = self.frames.store, []
        recording_B = np.searchsorted(store.stop_R, frame_B, side="right")
        for r in np.unique(recording_B).tolist():
            episode_B = np.searchsorted(store.stop_E, frame_B[recording_B == r], side="right")
            first = np.searchsorted(store.stop_E, store.stop_R[r - 1], side="right") if r else 0
            episodes = (np.unique(episode_B) - first).tolist()
            listed = ", ".join(map(str, episodes[:LISTED])) + ", …" * (len(episodes) > LISTED)
            name = store.recordings[r].name or f"recording {r}"
            found.append(f"{self.embodiments[store.robot_R[r]].name} {name}: episodes {listed}")
        return "; ".join(found)

    # ---- parts --------------------------------------------------------------------------------

    def _by_embodiment(self, spans: Spans) -> list[Spans]:
        return [
            Spans.join(
                [spans.clip(r.start, r.stop) for r in self.frames.store.of_embodiment(index)]
            )
            for index in range(len(self.embodiments))
        ]

    def _rank(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _global_batch(self) -> int:
        return self.batch_size * self._rank()[1]

    def _loader(
        self, order: EpochOrder, *, training: bool, resume: tuple[int, int] = (0, 0)
    ) -> DataLoader[Any]:
        rank, world_size = self._rank()
        if world_size > 1 and _lightning_shards(self.trainer):
            raise DataError(
                "batches are sharded over processes by the data module; "
                "set trainer.use_distributed_sampler to false"
            )
        batches = ShardedBatches(
            order, self.batch_size, rank, world_size, whole_batches=training, resume=resume
        )
        if training:
            self._training = batches
        return DataLoader(
            cast(Dataset[Any], self.windows(training)),
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _RescaleProgress(Callback):
    """Tells a resumed run how many batches of today's size the windows seen in its epoch are.

    Lightning goes on counting in batches of the run before; with another global batch it would
    end the epoch too early or too late.
    """

    def __init__(self, done: int) -> None:
        self._done = done

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        saved_within_a_batch = progress.processed - progress.completed
        progress.ready = progress.started = progress.processed = self._done
        progress.completed = self._done - saved_within_a_batch

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        # Resumed behind an epoch's last batch, Lightning does not count the next epoch as begun;
        # a checkpoint of that epoch would then be taken for one of its end.
        epochs: Any = trainer.fit_loop.epoch_progress
        if epochs.current.ready == epochs.current.processed:
            epochs.increment_ready()
            epochs.increment_started()


def _as_it_is[T](batch: T) -> T:
    """What ``__getitems__`` returns is a finished batch."""
    return batch


def _lightning_shards(trainer: Any) -> bool:  # noqa: ANN401  private to Lightning, untyped
    return bool(trainer._accelerator_connector.use_distributed_sampler)
