"""Episodes of the robots' datasets."""

from typing import NamedTuple

from data_modules.lerobot.columns import Columns


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


class RobotDataset(NamedTuple):
    """One dataset that was read, and the index of its robot."""

    robot: int
    columns: Columns
