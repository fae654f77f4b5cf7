"""Datasets as reports open and examine them, one by one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.data.column_store import Column
from actionprior.data.store import Recording
from actionprior.embodiment import Embodiment

ImageReader = Callable[[int, int], npt.NDArray[np.uint8]]
"""Function from episode and row to an image, uint8 (3, Y, X)."""


@dataclass(frozen=True)
class Contents:
    """One dataset as a report examines it.

    Attributes:
        recording: Episodes as they were recorded.
        timestamp_N: float64 (N,), time since the episode's start [s]; None: not known.
        task_N: int64 (N,), index into ``tasks``; None: no instructions.
        tasks: Instructions.
        trust_rate: True if training accepts timestamps that contradict the frame rate.
        recorded_hz: The recording's own rate [Hz], if training resamples it to the robot's.
        absent_videos: Episodes whose video is missing on disk, by camera.
        image_sizes: Rows and columns of the images as recorded, by camera.
        excluded: Episodes that neither train nor validate.
        images: Readers of the cameras' images, uint8 (3, Y, X), by episode and row.
        unread: Reason why a camera's images are not read, by camera.
        trust_fps: True if training does not use the timestamps.
        other_actions: Further vectors of the dataset with all of the action's features.
    """

    recording: Recording
    timestamp_N: npt.NDArray[np.float64] | Column | None = None
    task_N: npt.NDArray[np.int64] | Column | None = None
    tasks: list[str] = field(default_factory=list)
    trust_rate: bool = False
    recorded_hz: float | None = None
    absent_videos: dict[str, list[int]] = field(default_factory=dict)
    image_sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    excluded: list[int] = field(default_factory=list)
    images: dict[str, ImageReader] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    trust_fps: bool = False
    other_actions: list[str] = field(default_factory=list)


class Source(NamedTuple):
    """Dataset that a report opens independently of all others.

    Attributes:
        robot: Robot that the dataset was recorded on.
        name: Name of the dataset, for reports.
        read: Reads the dataset; raises DataError if training would refuse it.
    """

    robot: Embodiment
    name: str
    read: Callable[[], Contents]
