"""One thing found, and where."""

from typing import Literal, NamedTuple

from actionprior.data import DataError
from actionprior.errors import UserError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Finding(NamedTuple):
    """One thing found.

    Attributes:
        level: ``error`` spoils training, ``warning`` is worth a look, ``note`` is good to know.
        check: its name.
        robot: the embodiment's name.
        dataset: which of the robot's datasets.
        feature: name of the feature, group or camera; empty: all.
        episode: number in the dataset; -1: all.
        frame: row in the episode; -1: all.
        message: what was found and what to do.
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
    """What training would end with, at the place that the error names."""
    place = error if isinstance(error, DataError) else DataError(str(error))
    return Finding(
        "error", "refused", robot, dataset, place.feature, place.episode, place.frame, str(error)
    )
