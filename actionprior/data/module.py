"""DataModule contract: what the models of both stages require of data.

To use your own recordings, write a subclass with ``embodiments`` and ``read_frames``, as
``data_modules/trajectories.py`` does.
"""

import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from actionprior.batch import TrajectoryBatch
from actionprior.data.contents import Contents, Source
from actionprior.data.frame_ranges import Spans
from actionprior.data.resumed_progress import RescaleProgress
from actionprior.data.sampling import EpochOrder, ShardedBatches
from actionprior.data.store import TrajectoryStore, TrajectoryWindows
from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import UserError

Batch_co = TypeVar("Batch_co", covariant=True)
LISTED = 20  # largest number of episodes per recording that a message lists


class DataError(UserError):
    """Unusable data; the message names the place and what to do.

    Args:
        message: One sentence for the user.
        feature: Name of the feature that the message is about, for reports; empty: no single one.
        episode: Number of the episode that the message is about; -1: no single one.
        frame: Row in the episode that the message is about; -1: no single one.
    """

    def __init__(
        self, message: str, *, feature: str = "", episode: int = -1, frame: int = -1
    ) -> None:
        super().__init__(message)
        self.feature, self.episode, self.frame = feature, episode, frame


class BatchSource(Protocol[Batch_co]):
    """Dataset that gathers whole batches, so that nothing is left to collate."""

    def __len__(self) -> int: ...

    def __getitems__(self, frames: Sequence[int]) -> Batch_co: ...


class Frames(NamedTuple):
    """All frames of a run, and those at which windows start.

    Attributes:
        store: The frames.
        train: Frames at which training windows start.
        val: Frames at which validation windows start, of other episodes than ``train``.
    """

    store: TrajectoryStore
    train: Spans
    val: Spans


class EmbodiedDataModule(LightningDataModule, ABC):
    """Windows of several robots' trajectories, shuffled, sharded and resumable.

    Run it with ``Trainer(use_distributed_sampler=False)``: the data module shards its batches
    itself. Their order depends on (seed, epoch, position) only, and the position is saved in the
    checkpoint. A run resumed within an epoch continues with the exact next batch, or with the
    exact next window if the batch size or the number of processes has changed.

    Args:
        chunk_length: Steps H of an action chunk.
        history_length: Past steps H_h that a policy may see.
        batch_size: Windows per process and step.
        num_workers: Number of loader processes; Stage 1 needs none.
        seed: Seed of the split and of the order.

    Attributes:
        views: Number of stored views per frame, of which training batches take one at random. With
            several, ``windows(training=True)`` is indexed by ``views * frame + view``.
        image_shape: How a policy sees the images, known after ``setup``. None: not known.
        instructions: Instructions in the data, known after ``setup``. Empty: not known.
        split_checkpoint: Checkpoint that the run starts from, empty for none. The episodes that it
            held out stay held out, if the subclass has a ``split_record``.
    """

    views: int = 1
    image_shape: ImageShape | None = None
    instructions: Sequence[str] = ()
    split_checkpoint: str = ""

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
        for name, value in (("history_length", history_length), ("num_workers", num_workers)):
            if value < 0:
                raise DataError(f"{name} is {value}, expected at least 0")
        self.chunk_length = chunk_length
        self.history_length = history_length
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._frames: Frames | None = None
        self._resume = (0, 0)  # epoch, and number of its frames that are trained on already
        self._uneven = (0, 0)  # epoch, and number of those beyond the last full global batch
        self._training: ShardedBatches | None = None

    # ---- what a subclass defines ------------------------------------------------------------

    @property
    @abstractmethod
    def embodiments(self) -> list[Embodiment]:
        """Robots, known after ``__init__`` without reading data; ``embodiment_B`` indexes them."""

    @abstractmethod
    def read_frames(self) -> Frames:
        """Read the frames; ``setup`` calls it once.

        Raises:
            DataError: the data cannot be used.
        """

    def sources(self) -> list[Source]:
        """List the datasets for the doctor; by default the recordings that ``setup`` has read.

        Raises:
            DataError: by default, if ``setup`` does.
        """
        self.setup("fit")
        store = self.frames.store
        return [
            Source(self.embodiments[robot], r.name or f"recording {number}", partial(Contents, r))
            for number, (robot, r) in enumerate(zip(store.robot_R, store.recordings, strict=True))
        ]

    def split_record(self) -> dict[str, Any]:
        """Describe which episodes train and which validate, for checkpoints; empty by default."""
        return {}

    def follow_split(self, record: dict[str, Any], checkpoint: str) -> None:
        """Hold out what a checkpoint held out that is being loaded. No-op by default.

        Args:
            record: The checkpoint's ``split_record``.
            checkpoint: Path of the checkpoint, for messages.
        """

    def disturbed(self, robot: int) -> bool:
        """Check whether a robot's demonstrations are known to have been disturbed on purpose.

        The actions of such demonstrations need not succeed when they are replayed.
        """
        return False

    def windows(self, training: bool) -> BatchSource[Any]:
        """Build the dataset that turns frames into batches; by default that of Stage 1."""
        return TrajectoryWindows(self.frames.store, self.chunk_length)

    def mixture(self, sizes: list[int]) -> list[int]:
        """Choose how many windows of each embodiment make an epoch, given how many there are."""
        return sizes

    # ---- Lightning ----------------------------------------------------------------------------

    @property
    def frames(self) -> Frames:
        """Frames that ``setup`` has read.

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
        """Build the loader of full batches, resumed where the loaded checkpoint stopped."""
        trainer = self.trainer
        overfit = trainer is not None and cast(Any, trainer).overfit_batches > 0
        groups = self._by_embodiment(self.frames.train)
        counts = self.mixture([len(group) for group in groups])
        order = EpochOrder(groups, counts, seed=self.seed, shuffle=not overfit)
        resume, self._resume = self._resume, (0, 0)
        return self._loader(order, training=True, resume=resume)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Build the loader of all validation windows, once each, mixed over the robots."""
        if len(self.frames.val) == 0:
            return []
        order = EpochOrder(self._by_embodiment(self.frames.val), seed=self.seed, shuffle=False)
        return self._loader(order, training=False)

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Build the loader of the validation windows; a callback runs the rollouts."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Build the loader of the validation windows."""
        # Lightning warns that a custom sampler may skip windows; this one takes all of them.
        warnings.filterwarnings("ignore", message=".*custom batch sampler `ShardedBatches`.*")
        return self.val_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and how many of its windows are trained on."""
        if self.trainer is None:
            return {}
        loop: Any = self.trainer.fit_loop
        # Take the epoch from the order, because Lightning's own counts lag behind when it resumes.
        epoch = self._resume[0] if self._training is None else self._training.sampler.epoch
        done = loop.epoch_loop.batch_progress.current.processed
        if done >= self.trainer.num_training_batches:
            epoch, done = epoch + 1, 0
        uneven_epoch, uneven = self._uneven
        frames = done * self._global_batch() + (uneven if epoch == uneven_epoch else 0)
        return {"epoch": epoch, "frames": frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from the saved epoch and position."""
        if not state_dict:
            return
        frames = state_dict["frames"]
        self._resume = (state_dict["epoch"], frames)
        if self.trainer is not None:
            done, uneven = divmod(frames, self._global_batch())
            self._uneven = (state_dict["epoch"], uneven)
            cast(Any, self.trainer).callbacks.append(RescaleProgress(done))
        # Lightning looks for a stateful loader only; this module keeps the position itself.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")

    # ---- for the models -----------------------------------------------------------------------

    def statistics_sample(self, max_windows: int = 20000) -> TrajectoryBatch:
        """Gather the training windows from which a model fits its normaliser.

        They are evenly spaced over each robot's training windows, and the same in every process
        and run. Each robot has equally many, or all that it has. A held-out robot has no training
        windows, so its statistics, which its errors need, are those of its validation windows.

        Args:
            max_windows: Largest number of windows of all robots.

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
        """Name the robots, recordings and episodes in a batch of the running epoch, for messages.

        Episodes have their numbers in the recording. The text is empty before training.

        Args:
            batch_idx: Number of this process's batch, as Lightning counts it.
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
        if world_size > 1 and _distributed_sampler_is_on(self.trainer):
            raise DataError(
                "batches are sharded over processes by the data module; "
                "set trainer.use_distributed_sampler to false"
            )
        batches = ShardedBatches(
            order,
            self.batch_size,
            rank,
            world_size,
            whole_batches=training,
            resume=resume,
            views=self.views if training else 1,
        )
        if training:
            self._training = batches
        return DataLoader(
            cast(Dataset[Any], self.windows(training)),
            batch_sampler=batches,
            collate_fn=_finished_batch,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_ignore_interrupts,
            pin_memory=torch.cuda.is_available(),
        )


def _ignore_interrupts(worker: int) -> None:
    """Let loader processes live through Ctrl-C, which a terminal sends to them, too.

    The run finishes its step and ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _finished_batch[T](batch: T) -> T:
    """Return the batch unchanged: ``__getitems__`` has collated it already."""
    return batch


def _distributed_sampler_is_on(trainer: Any) -> bool:  # noqa: ANN401  private to Lightning, untyped
    return bool(trainer._accelerator_connector.use_distributed_sampler)
