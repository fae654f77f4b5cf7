"""Stage 1 data: state-action trajectories of one or more robots from LeRobot datasets."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from actionprior.batch import TrajectoryBatch
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
    split_episodes,
)
from actionprior.embodiment import Embodiment
from data_modules.images.camera_files import CameraFiles, image_keys
from data_modules.lerobot.columns import Columns, LeRobotEmbodiment, read_columns
from data_modules.lerobot.hub import locate
from data_modules.lerobot.remote import is_url, local_folder
from data_modules.lerobot.source import read_info


class Episode(NamedTuple):
    """Consecutive frames of one dataset that windows never leave: an episode, or a part of one.

    Attributes:
        robot: Index of the robot in ``embodiments``.
        dataset: Index of the dataset among all that are read.
        number: Number of the episode in the dataset.
        start: First frame, counted in the dataset.
        stop: One past the last frame.
        used: False if the episode neither trains nor validates.
        validation: True if the episode validates.
    """

    robot: int
    dataset: int
    number: int
    start: int
    stop: int
    used: bool
    validation: bool


@dataclass(frozen=True)
class RobotMixture:
    """Share of each robot in training.

    Attributes:
        weights: Share of each robot in an epoch, by name. By default each window comes once.
        temperature: Without ``weights``, shares are proportional to the number of a robot's
            windows to the power of 1/temperature.
        caps: Largest number of windows of a robot per epoch, by name. Later epochs use the rest.
        held_out: Names of robots that validate and do not train.
    """

    weights: dict[str, float] | None = None
    temperature: float = 1.0
    caps: dict[str, int] | None = None
    held_out: list[str] | None = None


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
        skip_idle: Exclude training windows in which hardly anything moves.
        idle_threshold: Travel of a feature group above which a window counts as moving, relative
            to the travel that only 1 in 100 of the robot's windows exceed.
        shuffle_time: Permute the steps inside each training chunk, for a control prior.
        chunk_seconds: Duration of a chunk on every robot. All robots are resampled to
            ``chunk_length / chunk_seconds`` [Hz], which becomes their ``control_hz``.
        val_episodes: Numbers of the episodes that validate, by robot, in place of
            ``val_fraction``. The count starts at 0 and continues through a robot's further
            datasets. ``max_episodes`` does not count these episodes.
        noise: Replace each training chunk by noise of its robot's scale, for another control
            prior.
    """

    needs_videos = False

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
        skip_idle: bool = False,
        idle_threshold: float = 0.02,
        shuffle_time: bool = False,
        chunk_seconds: float | None = None,
        val_episodes: dict[str, list[int]] | None = None,
        noise: bool = False,
    ) -> None:
        super().__init__(chunk_length, history_length, batch_size, num_workers, seed)
        self.robots = list(embodiments)
        if chunk_seconds is not None:
            self.robots = _at_rate(self.robots, chunk_length, chunk_seconds)
        self.val_fraction = val_fraction
        self.max_episodes = max_episodes
        self.max_episodes_per_task = max_episodes_per_task
        self.weights = mixture.weights
        self.skip_idle = skip_idle
        self.idle_threshold = idle_threshold
        self.shuffle_time = shuffle_time
        self.noise = noise
        self.temperature = mixture.temperature
        self.caps = mixture.caps or {}
        self.held_out = mixture.held_out or []
        self.val_episodes = val_episodes or {}
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
            (index, self.read_dataset(root, robot))
            for index, robot in enumerate(self.robots)
            for root in self._folders(robot)
        ]
        episodes = self._split(self._select(datasets))
        recordings = [
            (robot, _recording(columns, [e for e in episodes if e.dataset == dataset]))
            for dataset, (robot, columns) in enumerate(datasets)
        ]
        store = TrajectoryStore(self.robots, recordings)
        train = _spans(store, [e for e in episodes if e.used and not e.validation])
        held_out = _spans(store, [e for e in episodes if e.used and e.validation])
        if self.skip_idle:
            train = self._without_idle(store, train)
        self.keep_sources([columns for _, columns in datasets], episodes)
        return Frames(store, train, held_out)

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
        sizes, absent = {}, {}
        for camera in image_keys(columns.recorded):
            files = CameraFiles(columns.recorded, [camera])
            sizes[camera] = files.size(camera)
            # Videos on the hub or behind a URL are downloaded or read when they are needed.
            remote = on_hub or is_url(place) or robot.video_urls
            if not remote and (lacking := files.episodes_without_video()):
                absent[camera] = lacking
        return Contents(
            Recording(columns.action_Na, columns.state_Ns, columns.lengths_E, place),
            columns.timestamp_N,
            columns.task_N,
            columns.tasks,
            robot.trust_fps or robot.resample,
            recorded_hz,
            absent,
            sizes,
        )

    def _select(self, datasets: list[tuple[int, Columns]]) -> list[Episode]:
        chosen = []
        seen: Counter[int] = Counter()  # a robot's episodes so far
        for dataset, (robot, columns) in enumerate(datasets):
            excluded = self.excluded_episodes(dataset)
            count = len(columns.lengths_E)
            validates = {
                number - seen[robot]
                for number in self.val_episodes.get(self.robots[robot].name, [])
                if seen[robot] <= number < seen[robot] + count
            }
            seen[robot] += count
            if lost := sorted(validates & excluded):
                raise DataError(
                    f"{columns.root}: val_episodes names episode {lost[0]}, which is excluded "
                    "because a video is missing; name another episode, or add the video"
                )
            wanted = [e for e in range(count) if e not in excluded | validates]
            first = set(wanted[: self._most_episodes(self.robots[robot].name)])
            taken: Counter[str] = Counter()
            for index, task in enumerate(columns.tasks_E):
                used = index in first
                taken[task] += used
                if self.max_episodes_per_task and taken[task] > self.max_episodes_per_task:
                    used = False
                start = int(columns.starts_E[index])
                stop = start + int(columns.lengths_E[index])
                held = index in validates
                chosen.append(Episode(robot, dataset, index, start, stop, used or held, held))
        for name, numbers in self.val_episodes.items():
            known = seen[[robot.name for robot in self.robots].index(name)]
            if beyond := [n for n in numbers if not 0 <= n < known]:
                raise DataError(
                    f"val_episodes names episode {beyond[0]} of {name!r}, which has {known} "
                    f"(0 to {known - 1})"
                )
        return chosen

    def _most_episodes(self, robot: str) -> int | None:
        if isinstance(self.max_episodes, dict):
            return self.max_episodes.get(robot)
        return self.max_episodes

    def _split(self, episodes: list[Episode]) -> list[Episode]:
        result = [e for e in episodes if not e.used]
        for robot in range(len(self.robots)):
            mine = [e for e in episodes if e.robot == robot and e.used]
            if self.robots[robot].name in self.held_out:
                result += [e._replace(validation=True) for e in mine]
                continue
            if self.robots[robot].name in self.val_episodes:
                result += mine
                continue
            if len(mine) == 1 and self.val_fraction > 0 and mine[0].stop - mine[0].start > 1:
                only = mine[0]
                length = only.stop - only.start
                cut = only.stop - min(max(1, round(self.val_fraction * length)), length - 1)
                result.append(only._replace(stop=cut))
                result.append(only._replace(start=cut, validation=True))
                continue
            rng = np.random.default_rng([self.seed, robot])
            held_out = set(split_episodes(len(mine), self.val_fraction, rng).tolist())
            result += [e._replace(validation=i in held_out) for i, e in enumerate(mine)]
        return sorted(result, key=lambda e: (e.dataset, e.start))

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
