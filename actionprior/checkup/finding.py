"""Result of a check and its place in the data."""

from typing import Literal, NamedTuple

from actionprior.data import DataError
from actionprior.errors import UserError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Finding(NamedTuple):
    """One result of a check.

    Attributes:
        level: ``error`` spoils training, ``warning`` is worth a look, ``note`` is good to know.
        check: Name of the check.
        robot: Name of the embodiment.
        dataset: Name of the robot's dataset.
        feature: Name of the feature, group or camera; empty: all.
        episode: Number of the episode in the dataset; -1: all.
        frame: Row in the episode; -1: all.
        message: What was found and what to do.
    """

    level: Level
    check: str
    robot: str
    dataset: str
    feature: str
    episode: int
    frame: int
    message: str


def refusal(error: UserError, robot: str = "", dataset: str = "") -> Finding:
    """Turn the error that training would raise into a finding, at the place that it names."""
    place = error if isinstance(error, DataError) else DataError(str(error))
    return Finding(
        "error", "refused", robot, dataset, place.feature, place.episode, place.frame, str(error)
    )
