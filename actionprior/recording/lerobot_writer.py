"""Write scripted demonstrations as a LeRobot v3 dataset, with lerobot itself.

A recording appears whole or not at all: it grows in a hidden folder beside its destination and is
renamed into place when lerobot has closed it.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionprior.errors import UserError
from actionprior.files.folders import atomic_folder

SEEDS_PER_RECORDING = 1_000_000
BLOCKS = 900
"""Of reset seeds: evaluation begins where they end (``actionprior.rollout.DEFAULT_SEED``)."""

_log = logging.getLogger(__name__)


class RecordedFrame(NamedTuple):
    """One step: the observation and the action that was chosen on it.

    Attributes:
        state: (n_s,).
        images: camera key → (Y, X, 3).
        action: (n_a,).
    """

    state: NDArray[np.float32]
    images: Mapping[str, NDArray[np.uint8]]
    action: NDArray[np.float32]


class Demonstration(NamedTuple):
    """One episode that succeeded, and its task in words."""

    instruction: str
    frames: list[RecordedFrame]


class TaskToRecord(NamedTuple):
    """One of the tasks that are recorded.

    Attributes:
        name: for messages.
        demonstrate: the expert's episode from a reset seed, or None where it fails.
    """

    name: str
    demonstrate: Callable[[int], Demonstration | None]


class DatasetFeatures(NamedTuple):
    """What the dataset holds of each frame.

    Attributes:
        robot: its name.
        fps: frames a second, a whole number (lerobot knows no other).
        state: names of the entries of ``observation.state``.
        action: names of the entries of ``action``.
        images: camera key → (Y, X, 3).
    """

    robot: str
    fps: int
    state: Sequence[str]
    action: Sequence[str]
    images: Mapping[str, tuple[int, ...]]


class RecordingSummary(NamedTuple):
    """What was recorded.

    Attributes:
        root: the dataset's folder.
        episodes: episodes in it.
        frames: frames in it.
        discarded: expert episodes that failed and were drawn again with the next seed.
        next_seed: first reset seed that the recording did not use.
    """

    root: Path
    episodes: int
    frames: int
    discarded: int
    next_seed: int


def check_recording(root: Path, episodes_per_task: int, seed: int, overwrite: bool) -> None:
    """Refuse what ``write_demonstrations`` would, before environments are made.

    Raises:
        UserError: something stands at ``root`` and ``overwrite`` is False, or a number is out of
            range.
    """
    if episodes_per_task < 1:
        raise UserError(f"episodes_per_task is {episodes_per_task}; it must be at least 1")
    if not 0 <= seed < BLOCKS:
        raise UserError(f"seed is {seed}; it must be 0 to {BLOCKS - 1}: evaluation owns the rest")
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
) -> RecordingSummary:
    """Record episodes of one robot's tasks into one LeRobot dataset; what stood there is replaced.

    Frame ``t`` holds the observation at ``t`` and the action taken on it. Images are lossless PNG
    inside parquet, or AV1 video. Tasks alternate, so that any stretch of episodes holds all of
    them. Reset seeds run from ``seed * 1_000_000``, each used once for all tasks together.

    Args:
        tasks: at least one.
        features: what a frame holds.
        root: the dataset's folder.
        episodes_per_task: episodes kept of each task.
        seed: which block of a million reset seeds to use, 0 to 899.
        use_videos: store video instead of images; slower to write and to read at small sizes.
        progress: show a progress bar.

    Raises:
        UserError: an expert fails more often than it succeeds.
    """
    check_recording(root, episodes_per_task, seed, overwrite=True)
    with atomic_folder(root) as building, _quiet_datasets():
        dataset = _create(features, root.name, building, use_videos)
        next_seed = first_seed = seed * SEEDS_PER_RECORDING
        frame_count = 0
        failed = [0] * len(tasks)
        total = episodes_per_task * len(tasks)
        tqdm: Any = importlib.import_module("tqdm").tqdm
        hidden = not progress or None  # None hides the bar where there is no terminal
        with tqdm(total=total, desc="recording", unit="episode", disable=hidden) as bar:
            for episode in range(total):
                turn, which = divmod(episode, len(tasks))
                found = None
                while found is None:
                    if next_seed - first_seed >= SEEDS_PER_RECORDING:
                        raise UserError(f"all {SEEDS_PER_RECORDING} seeds of this block are used")
                    found = tasks[which].demonstrate(next_seed)
                    next_seed += 1
                    failed[which] += found is None
                    if failed[which] > 20 + turn:
                        raise UserError(
                            f"the expert of {tasks[which].name} keeps failing "
                            f"({failed[which]} of {turn + failed[which]} episodes)"
                        )
                for frame in found.frames:
                    dataset.add_frame(_row(frame, found.instruction))
                with scheduled_as_before():
                    dataset.save_episode()
                frame_count += len(found.frames)
                bar.update()
        with scheduled_as_before():
            dataset.finalize()
        # lerobot leaves the folder that images were staged in.
        shutil.rmtree(building / "images", ignore_errors=True)
    discarded = sum(failed)
    _log.info("recorded %d episodes (%d discarded) at %s", total, discarded, root)
    return RecordingSummary(root, total, frame_count, discarded, next_seed)


def _create(features: DatasetFeatures, name: str, folder: Path, use_videos: bool) -> Any:  # noqa: ANN401  lerobot is untyped
    # Imported here: lerobot takes ten CPU-seconds to import.
    dataset_class: Any = importlib.import_module("lerobot.datasets").LeRobotDataset
    columns: dict[str, dict[str, Any]] = {
        "observation.state": _vector(features.state),
        "action": _vector(features.action),
    }
    for camera, shape in features.images.items():
        columns[camera] = {
            "dtype": "video" if use_videos else "image",
            "shape": shape,
            "names": ["height", "width", "channels"],
        }
    return dataset_class.create(
        repo_id=f"actionprior/{name}",
        fps=features.fps,
        features=columns,
        root=folder,
        robot_type=features.robot,
        use_videos=use_videos,
        video_backend="pyav",  # without it, lerobot warns at length where FFmpeg is missing
        metadata_buffer_size=100,
    )


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": list(names)}


def _row(frame: RecordedFrame, instruction: str) -> dict[str, Any]:
    vectors = {"observation.state": frame.state, "action": frame.action}
    return {**vectors, **frame.images, "task": instruction}


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """Undo what lerobot's AV1 encoder (SVT-AV1) does to a thread that opens it as root.

    It makes it a real-time one (``SCHED_FIFO``, 99): whatever the process does from then on, no
    other gets a core as long as it computes.
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
    """Hide the bar that the ``datasets`` library shows for every episode."""
    datasets = importlib.import_module("datasets")
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
