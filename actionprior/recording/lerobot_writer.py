"""Write scripted demonstrations as a LeRobot v3 dataset, with lerobot's own writer.

A recording is atomic. It is written to a hidden folder beside its destination, which is renamed
when lerobot has closed the dataset.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionprior.errors import UserError
from actionprior.files.folders import atomic_folder
from actionprior.files.progress import episode_bar
from actionprior.recording.image_writer import ImageWriter

SEEDS_PER_RECORDING = 1_000_000
"""Size of a block of reset seeds."""
BLOCKS = 900
"""Number of blocks of reset seeds. Evaluation uses the seeds after them
(``actionprior.rollout.DEFAULT_SEED``)."""

RECORDING = "meta/recording.json"
"""File of a dataset that says how it was recorded: block of reset seeds, ``noise``, ``push``."""

_log = logging.getLogger(__name__)


class RecordedFrame(NamedTuple):
    """One step of a demonstration: an observation and the action that the expert chose.

    Attributes:
        state: State vector (n_s,).
        images: Image (Y, X, 3) of each camera key.
        action: Action vector (n_a,).
    """

    state: NDArray[np.float32]
    images: Mapping[str, NDArray[np.uint8]]
    action: NDArray[np.float32]


class Demonstration(NamedTuple):
    """A successful episode, and its task in words."""

    instruction: str
    frames: list[RecordedFrame]


class TaskToRecord(NamedTuple):
    """A task and its expert.

    Attributes:
        name: Name of the task in messages.
        demonstrate: Function that runs the expert's episode of a reset seed. It returns None if
            the expert fails.
    """

    name: str
    demonstrate: Callable[[int], Demonstration | None]


class DatasetFeatures(NamedTuple):
    """Features of a dataset's frames.

    Attributes:
        robot: Name of the robot.
        fps: Frames per second; lerobot supports only integers.
        state: Names of the entries of ``observation.state``; empty: the robot has none.
        action: Names of the entries of ``action``.
        images: Shape (Y, X, 3) of each camera key.
    """

    robot: str
    fps: int
    state: Sequence[str]
    action: Sequence[str]
    images: Mapping[str, tuple[int, ...]]


class RecordingSummary(NamedTuple):
    """Summary of a finished recording.

    Attributes:
        root: Folder of the dataset.
        episodes: Number of episodes.
        frames: Number of frames.
        discarded: Number of failed expert episodes, which were repeated with the next seed.
        next_seed: First reset seed that the recording did not use.
        wanted: Number of episodes that were asked for. It is larger than ``episodes`` if the
            recording was stopped.
    """

    root: Path
    episodes: int
    frames: int
    discarded: int
    next_seed: int
    wanted: int


def check_recording(root: Path, episodes_per_task: int, seed: int, overwrite: bool) -> None:
    """Check the arguments of a recording before environments are created.

    Raises:
        UserError: ``root`` exists and ``overwrite`` is False, or a number is out of range.
    """
    if episodes_per_task < 1:
        raise UserError(f"episodes_per_task is {episodes_per_task}; it must be at least 1")
    if not 0 <= seed < BLOCKS:
        raise UserError(
            f"seed is {seed}; it must be 0 to {BLOCKS - 1}, since evaluation uses the others"
        )
    if root.exists() and not overwrite:
        raise UserError(f"{root} exists already; remove it or pass overwrite=True")


def write_demonstrations(
    tasks: Sequence[TaskToRecord],
    features: DatasetFeatures,
    root: Path,
    *,
    episodes_per_task: int,
    seed: int = 0,
    use_videos: bool = False,
    progress: bool = True,
    disturbances: Mapping[str, Any] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> RecordingSummary:
    """Record episodes of one robot's tasks into one LeRobot dataset. Replace an existing one.

    Frame ``t`` holds the observation at ``t`` and the action taken on it. Images are lossless PNG
    inside parquet, or AV1 video. Tasks alternate, so that consecutive episodes cover all of them.
    Reset seeds start at ``seed * 1_000_000``. Each is used once, for one of the tasks.

    Args:
        tasks: Tasks to record, at least one.
        features: Features of the frames.
        root: Folder of the dataset.
        episodes_per_task: Number of successful episodes of each task.
        seed: Block of a million reset seeds to use, 0 to 899.
        use_videos: Store video instead of images. Small videos are slower to write and read.
        progress: Show the progress.
        disturbances: What disturbed the executed actions, such as ``{"noise": 0.2}``. It is written
            to ``meta/recording.json``, because such actions need not succeed when replayed.
        stopped: Function that is asked before each episode. When it returns True, the dataset is
            closed with the episodes that it has.

    Raises:
        UserError: A number is out of range, an expert keeps failing, or the block has no more
            seeds.
        KeyboardInterrupt: ``stopped`` returned True before the first episode.
    """
    check_recording(root, episodes_per_task, seed, overwrite=True)
    episodes = frame_count = 0
    total = episodes_per_task * len(tasks)
    source = _Demonstrations(tasks, seed * SEEDS_PER_RECORDING)
    with (
        open_dataset(features, root, use_videos, {"seed": seed, **(disturbances or {})}) as save,
        episode_bar("recording", total, hidden=not progress) as bar,
    ):
        while episodes < total and not (stopped and stopped()):
            found = source.draw(episodes)
            frame_count += save(found.frames, found.instruction)
            episodes += 1
            bar.update()
        if not episodes:
            raise KeyboardInterrupt
    discarded = sum(source.failed)
    _log.info("recorded %d episodes (%d discarded) at %s", episodes, discarded, root)
    return RecordingSummary(root, episodes, frame_count, discarded, source.next_seed, total)


@contextmanager
def open_dataset(
    features: DatasetFeatures,
    root: Path,
    use_videos: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Callable[[Iterable[RecordedFrame], str], int]]:
    """Context manager: write a LeRobot dataset, which replaces ``root`` at the end.

    It yields the function that saves an episode, its frames and instruction, and returns the number
    of frames. Images are lossless PNG inside parquet, or AV1 video. After an error ``root`` is as
    before.

    Args:
        features: Features of the frames.
        root: Folder of the dataset.
        use_videos: Store video instead of images.
        about: How the episodes were recorded, for ``meta/recording.json``; None writes none.
    """
    with atomic_folder(root) as building, _quiet_datasets():
        dataset = _create(features, root.name, building, use_videos)

        def save(frames: Iterable[RecordedFrame], instruction: str) -> int:
            count = 0
            for frame in frames:
                dataset.add_frame(_row(frame, instruction))
                count += 1
            with restored_scheduling():
                dataset.save_episode()
            return count

        try:
            yield save
        except BaseException:
            with suppress(Exception):  # otherwise its destructor writes the folder again
                dataset.finalize()
            raise
        with restored_scheduling():
            dataset.finalize()
        # lerobot leaves the empty folder of temporary images.
        shutil.rmtree(building / "images", ignore_errors=True)
        if about is not None:
            (building / RECORDING).write_text(json.dumps(about) + "\n", "utf-8")


class _Demonstrations:
    """Draw successful demonstrations of alternating tasks from one block of reset seeds."""

    def __init__(self, tasks: Sequence[TaskToRecord], first_seed: int) -> None:
        self._tasks = tasks
        self._stop = first_seed + SEEDS_PER_RECORDING
        self.next_seed = first_seed
        self.failed = [0] * len(tasks)

    def draw(self, episode: int) -> Demonstration:
        """Try seeds until the expert of the episode's task succeeds."""
        turn, which = divmod(episode, len(self._tasks))
        task = self._tasks[which]
        while True:
            if self.next_seed >= self._stop:
                raise UserError(f"all {SEEDS_PER_RECORDING} seeds of this block are used")
            found = task.demonstrate(self.next_seed)
            self.next_seed += 1
            if found is not None:
                return found
            self.failed[which] += 1
            if self.failed[which] > 20 + turn:
                raise UserError(
                    f"the expert of {task.name} keeps failing "
                    f"({self.failed[which]} of {turn + self.failed[which]} episodes)"
                )


def _create(features: DatasetFeatures, name: str, folder: Path, use_videos: bool) -> Any:  # noqa: ANN401  lerobot is untyped
    # Imported here, since it takes ten CPU-seconds.
    dataset_class: Any = importlib.import_module("lerobot.datasets").LeRobotDataset
    columns: dict[str, dict[str, Any]] = {"action": _vector(features.action)}
    if features.state:  # lerobot refuses an empty vector
        columns = {"observation.state": _vector(features.state)} | columns
    for camera, shape in features.images.items():
        columns[camera] = {
            "dtype": "video" if use_videos else "image",
            "shape": shape,
            "names": ["height", "width", "channels"],
        }
    dataset = dataset_class.create(
        repo_id=f"actionprior/{name}",
        fps=features.fps,
        features=columns,
        root=folder,
        robot_type=features.robot,
        use_videos=use_videos,
        video_backend="pyav",  # without it, lerobot warns at length if FFmpeg is missing
        metadata_buffer_size=100,
    )
    dataset.writer.image_writer = ImageWriter()
    return dataset


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": list(names)}


def _row(frame: RecordedFrame, instruction: str) -> dict[str, Any]:
    vectors = {"observation.state": frame.state} if len(frame.state) else {}
    vectors["action"] = frame.action
    return {**vectors, **frame.images, "task": instruction}


@contextmanager
def restored_scheduling() -> Iterator[None]:
    """Context manager: restore the thread's scheduling policy on exit.

    lerobot's AV1 encoder (SVT-AV1) gives a thread of root real-time priority (``SCHED_FIFO``, 99).
    While such a thread computes, no other process can use its core.
    """
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Context manager: hide the progress bar of the ``datasets`` library for every episode."""
    datasets = importlib.import_module("datasets")
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
