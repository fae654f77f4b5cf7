"""Stage 1 data: state-action trajectories of one or more robots from LeRobot datasets."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, override

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from actionprior.batch import TrajectoryBatch
from actionprior.checkpoints.split import recorded_split
from actionprior.data import (
    BatchSource,
    Contents,
    DataError,
    EmbodiedDataModule,
    Frames,
    Source,
)
from actionprior.data.frame_ranges import Spans
from actionprior.data.sampling import epoch_counts
from actionprior.data.store import (
    Recording,
    TrajectoryStore,
    TrajectoryWindows,
    moving,
)
from actionprior.embodiment import Embodiment
from data_modules.images.looking import VideoAccess, report_contents
from data_modules.lerobot.columns import Columns, LeRobotEmbodiment, read_columns
from data_modules.lerobot.episodes import Episode, RobotDataset
from data_modules.lerobot.exclusion import read_excluded
from data_modules.lerobot.hub import locate
from data_modules.lerobot.remote import local_folder
from data_modules.lerobot.source import read_info, was_disturbed
from data_modules.lerobot.split import EpisodeSplit
from data_modules.lerobot.split_record import split_record

IDLE_THRESHOLD = 0.02


@dataclass(frozen=True)
class RobotMixture:
    """Share of each robot in training.

    Attributes:
        weights: Share of each robot in an epoch, by name. By default each window comes once.
        temperature: Without ``weights``, shares are proportional to the number of a robot's
            windows to the power of 1/temperature.
        caps: Largest number of windows of a robot per epoch, by name. Later epochs use the rest.
        held_out: Names of robots that validate and do not train.
        exclude_episodes: File with the episodes that neither train nor validate, as
            ``lightning doctor --exclude_episodes FILE`` writes it.
    """

    weights: dict[str, float] | None = None
    temperature: float = 1.0
    caps: dict[str, int] | None = None
    held_out: list[str] | None = None
    exclude_episodes: str | None = None


class LeRobotTrajectories(EmbodiedDataModule):
    """Windows of actions and states, without opening images and videos.

    Validation uses whole episodes. If a robot has a single episode, its last part validates as a
    separate episode, so that no window is in both.

    Args:
        embodiments: Robots with their datasets.
        chunk_length: Steps H of an action chunk.
        history_length: Past steps H_h that a policy may see; only Stage 2 reads them.
        batch_size: Windows per process and training step.
        num_workers: Number of loader processes; gathering windows is fast enough without any.
        seed: Seed of the split and of the order.
        val_fraction: Share of each robot's episodes that validates.
        max_episodes: Number of first episodes that are used of each dataset, for all robots or by
            robot.
        max_episodes_per_task: Number of first episodes that are used of each instruction.
        mixture: Share of each robot in training.
        skip_idle: Exclude training windows in which hardly anything moves. A number is the travel
            of a feature group above which a window counts as moving, relative to the travel that
            only 1 in 100 of the robot's windows exceed; true is 0.02.
        shuffle_time: Permute the steps inside each training chunk, for a control prior.
        chunk_seconds: Duration of a chunk on every robot. All robots are resampled to
            ``chunk_length / chunk_seconds`` [Hz], which becomes their ``control_hz``.
        val_episodes: Numbers of the episodes that validate, by robot, in place of
            ``val_fraction``. The count starts at 0 and continues through a robot's further
            datasets. ``max_episodes`` does not count these episodes.
        noise: Replace each training chunk by noise of its robot's scale, for another control
            prior.
        robots: Names of the robots that are used, of those in ``embodiments``; by default all.
            Settings by robot of the others are not used.
    """

    needs_videos = False
    reads_images = False

    def __init__(
        self,
        embodiments: list[LeRobotEmbodiment],
        chunk_length: int = 15,
        history_length: int = 15,
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        val_fraction: float = 0.1,
        max_episodes: int | dict[str, int] | None = None,
        max_episodes_per_task: int | None = None,
        mixture: RobotMixture = RobotMixture(),
        skip_idle: bool | float = False,
        shuffle_time: bool = False,
        chunk_seconds: float | None = None,
        val_episodes: dict[str, list[int]] | None = None,
        noise: bool = False,
        robots: list[str] | None = None,
    ) -> None:
        super().__init__(chunk_length, history_length, batch_size, num_workers, seed)
        self.robots = _chosen(embodiments, robots)
        unused = {robot.name for robot in embodiments} - {robot.name for robot in self.robots}
        if chunk_seconds is not None:
            self.robots = _at_rate(self.robots, chunk_length, chunk_seconds)
        self.val_fraction = val_fraction
        self.max_episodes = max_episodes
        if isinstance(max_episodes, dict):
            self.max_episodes = _without(max_episodes, unused)
        self.max_episodes_per_task = max_episodes_per_task
        self.weights = None if mixture.weights is None else _without(mixture.weights, unused)
        self.idle_threshold = IDLE_THRESHOLD if skip_idle is True else float(skip_idle)
        self.shuffle_time = shuffle_time
        self.noise = noise
        self.temperature = mixture.temperature
        self.caps = _without(mixture.caps or {}, unused)
        self.held_out = [name for name in mixture.held_out or [] if name not in unused]
        self.val_episodes = _without(val_episodes or {}, unused)
        self.excluded = read_excluded(mixture.exclude_episodes)
        self.excluded.check_robots([robot.name for robot in embodiments])
        self._datasets_read: list[RobotDataset] = []
        self._episodes: list[Episode] = []
        self._record: dict[str, Any] | None = None  # of the present split
        self._followed: dict[str, Any] | None = None  # of ``split_checkpoint``
        self._check_arguments()

    @property
    def embodiments(self) -> list[Embodiment]:
        """Robots in the order given."""
        return cast(list[Embodiment], self.robots)

    def mixture(self, sizes: list[int]) -> list[int]:
        """Choose how many windows of each robot make an epoch, and log a mixture."""
        names = [robot.name for robot in self.robots]
        weights = None if self.weights is None else [self.weights.get(name, 0.0) for name in names]
        caps = [self.caps.get(name) for name in names]
        counts = epoch_counts(sizes, weights, self.temperature, caps)
        if counts != sizes:
            for name, count, size in zip(names, counts, sizes, strict=True):
                rank_zero_info(
                    f"{name}: {count} windows per epoch of its {size}, "
                    f"{count / sum(counts):.1%} of the epoch"
                )
        return counts

    def windows(self, training: bool) -> BatchSource[Any]:
        """Build the dataset of chunks; training of a control prior shuffles or replaces them."""
        return TrajectoryWindows(
            self.frames.store,
            self.chunk_length,
            shuffle_seed=self.seed if training and self.shuffle_time else None,
            noise_seed=self.seed if training and self.noise else None,
        )

    def prepare_data(self) -> None:
        """Download hub datasets, and copy what Stage 1 needs of URLs, in one process."""
        for robot in self.robots:
            for root in robot.roots:
                local_folder(root)
            for repo_id in robot.repo_ids:
                locate(repo_id, self.needs_videos)

    def sources(self) -> list[Source]:
        """List the datasets one by one, so that an unusable one does not hide the others."""
        return [
            Source(robot, place, partial(self._contents, robot, place, on_hub))
            for robot in self.robots
            for places, on_hub in ((robot.roots, False), (robot.repo_ids, True))
            for place in places
        ]

    def read_frames(self) -> Frames:
        """Read all datasets, split them by episode, and drop idle training windows on request."""
        datasets = [
            RobotDataset(index, self.read_dataset(root, robot))
            for index, robot in enumerate(self.robots)
            for root in self._folders(robot)
        ]
        episodes = self._split(datasets)
        recordings = [
            (robot, _recording(columns, [e for e in episodes if e.dataset == dataset]))
            for dataset, (robot, columns) in enumerate(datasets)
        ]
        store = TrajectoryStore(self.robots, recordings)
        train = _spans(store, [e for e in episodes if e.used and not e.validation])
        held_out = _spans(store, [e for e in episodes if e.used and e.validation])
        if self.idle_threshold:
            train = self._without_idle(store, train)
        self.keep_sources([columns for _, columns in datasets], episodes)
        return Frames(store, train, held_out)

    @override
    def disturbed(self, robot: int) -> bool:
        """See the base class; ``lightning record`` and the suite write down what they did."""
        return any(map(was_disturbed, self._folders(self.robots[robot])))

    @override
    def split_record(self) -> dict[str, Any]:
        """Describe which episodes train and which validate, for a checkpoint."""
        if self._record is None and self._datasets_read:
            names = [robot.name for robot in self.robots]
            self._record = split_record(
                names, self._datasets_read, self._episodes, self._followed or {}
            )
        return self._record or {}

    @override
    def follow_split(self, record: dict[str, Any], checkpoint: str) -> None:
        """Split the episodes again unless the split follows this record already."""
        if record == self._followed:
            return
        self._followed, self.split_checkpoint = record, checkpoint
        if self._frames is not None:
            self._frames = self.read_frames()

    def read_dataset(self, root: Path, robot: LeRobotEmbodiment) -> Columns:
        """Read one dataset's columns; Stage 2 checks its cameras, too."""
        return read_columns(root, robot)

    def excluded_episodes(self, dataset: int) -> set[int]:
        """Return the episodes of a dataset that are excluded; Stage 2 may exclude some."""
        return set()

    def keep_sources(self, datasets: list[Columns], episodes: list[Episode]) -> None:
        """Keep the datasets, in which Stage 2 finds images and instructions. No-op in Stage 1."""

    def _statistics_windows(self, frames_B: Tensor) -> TrajectoryBatch:
        windows = LeRobotTrajectories.windows(self, training=True)
        return cast(TrajectoryBatch, windows.__getitems__(frames_B.tolist()))

    # ---- parts --------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        if not self.robots:
            raise DataError("embodiments is empty; give at least one robot")
        names = [robot.name for robot in self.robots]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"embodiment name {twice[0]!r} is used twice")
        if not self.idle_threshold >= 0:
            raise DataError(f"skip_idle is {self.idle_threshold}, expected true, false or above 0")
        if not 0 <= self.val_fraction < 1:
            raise DataError(f"val_fraction is {self.val_fraction}, expected 0 <= val_fraction < 1")
        for robot in self.robots:
            if not robot.roots and not robot.repo_ids:
                raise DataError(f"embodiment {robot.name!r} names no dataset in roots or repo_ids")
        trained = [name for name in names if name not in self.held_out]
        for argument, given in (
            ("caps", self.caps),
            ("held_out", self.held_out),
            ("val_episodes", self.val_episodes),
            ("max_episodes", self.max_episodes if isinstance(self.max_episodes, dict) else {}),
        ):
            if unknown := sorted(set(given) - set(names)):
                raise DataError(f"{argument} names {unknown[0]!r}, which is not one of {names}")
        if not trained:
            raise DataError(f"held_out is {self.held_out}: there is no robot left to train on")
        if self.weights is not None and (
            sorted(self.weights) != sorted(trained) or min(self.weights.values()) <= 0
        ):
            raise DataError(
                f"weights is {self.weights}, expected a share above 0 for each of {trained}"
            )
        if not self.temperature > 0 or (self.weights is not None and self.temperature != 1):
            raise DataError(
                f"temperature is {self.temperature}, expected above 0, and 1 if weights are given"
            )
        if self.caps and min(self.caps.values()) < 1:
            raise DataError(f"caps is {self.caps}, expected at least 1 window for each")

    def _split(self, datasets: list[RobotDataset]) -> list[Episode]:
        """Split the episodes; those that a checkpoint of the run held out stay held out."""
        split = EpisodeSplit(
            [robot.name for robot in self.robots],
            self.seed,
            self.val_fraction,
            self.held_out,
            self.val_episodes,
            self.max_episodes,
            self.max_episodes_per_task,
        )
        places = [place for robot in self.robots for place in (*robot.roots, *robot.repo_ids)]
        excluded = [
            self.excluded_episodes(dataset)
            | self._listed(self.robots[robot], places[dataset], len(columns.lengths_E))
            for dataset, (robot, columns) in enumerate(datasets)
        ]
        if self._followed is None:
            self._followed = recorded_split(self.split_checkpoint)
        self._datasets_read, self._record = datasets, None
        self._episodes = split.episodes(datasets, excluded, self._followed, self.split_checkpoint)
        return self._episodes

    def _listed(self, robot: LeRobotEmbodiment, place: str, count: int) -> set[int]:
        return self.excluded.of(robot.name, [*robot.roots, *robot.repo_ids], place, count)

    def _folders(self, robot: LeRobotEmbodiment) -> list[Path]:
        return [local_folder(root) for root in robot.roots] + [
            locate(repo_id, self.needs_videos) for repo_id in robot.repo_ids
        ]

    def _contents(self, robot: LeRobotEmbodiment, place: str, on_hub: bool) -> Contents:
        root = locate(place, self.needs_videos) if on_hub else local_folder(place)
        recorded_hz = float(read_info(root)["fps"]) if robot.resample else None
        # Read it as recorded, because resampling would hide what is wrong. The report itself
        # checks the rate against the timestamps.
        as_recorded = replace(
            robot, resample=False, trust_fps=True, control_hz=recorded_hz or robot.control_hz
        )
        columns = self.read_dataset(root, as_recorded)
        excluded = sorted(self._listed(robot, place, len(columns.lengths_E)))
        access = VideoAccess(on_hub, self.needs_videos, self.reads_images)
        return report_contents(columns, robot, place, recorded_hz, excluded, access)

    def _without_idle(self, store: TrajectoryStore, train: Spans) -> Spans:
        frames_N = torch.from_numpy(train.frames())
        keep_N = moving(store, frames_N, self.chunk_length, self.idle_threshold)
        robot_N = store.embodiment_of(frames_N)
        for index, robot in enumerate(self.robots):
            kept = keep_N[robot_N == index]
            if len(kept) == 0:
                continue
            if not kept.any():
                raise DataError(f"embodiment {robot.name!r} never moves; set skip_idle to false")
            share = 1 - float(kept.float().mean())
            rank_zero_info(f"{robot.name}: {share:.0%} of the training windows are idle: excluded")
        return train.keep(keep_N.numpy())


def _chosen(robots: list[LeRobotEmbodiment], names: list[str] | None) -> list[LeRobotEmbodiment]:
    """Select robots by name, in the order of ``robots``.

    Raises:
        DataError: A name is unknown, or there is none.
    """
    if names is None:
        return list(robots)
    known = [robot.name for robot in robots]
    if not names or (unknown := [name for name in names if name not in known]):
        found = "is empty" if not names else f"names {unknown[0]!r}"
        raise DataError(f"data.robots {found}; expected some of {known}")
    return [robot for robot in robots if robot.name in names]


def _without[T](by_robot: dict[str, T], unused: set[str]) -> dict[str, T]:
    return {name: value for name, value in by_robot.items() if name not in unused}


def _at_rate(
    robots: list[LeRobotEmbodiment], chunk_length: int, chunk_seconds: float
) -> list[LeRobotEmbodiment]:
    if not chunk_seconds > 0:
        raise DataError(f"chunk_seconds is {chunk_seconds}, expected above 0")
    rate = chunk_length / chunk_seconds
    return [replace(robot, control_hz=rate, resample=True) for robot in robots]


def _recording(columns: Columns, episodes: list[Episode]) -> Recording:
    """Build the recording of a whole dataset; an episode that is cut in time counts as two."""
    lengths_E = np.array([e.stop - e.start for e in episodes], dtype=np.int64)
    return Recording(columns.action_Na, columns.state_Ns, lengths_E, str(columns.root))


def _spans(store: TrajectoryStore, episodes: list[Episode]) -> Spans:
    first_R = np.concatenate([[0], store.stop_R[:-1]])
    bounds = [(first_R[e.dataset] + e.start, first_R[e.dataset] + e.stop) for e in episodes]
    bounds_E2 = np.array(bounds, dtype=np.int64).reshape(-1, 2)
    return Spans(bounds_E2[:, 0], bounds_E2[:, 1])
