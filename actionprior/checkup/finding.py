"""Results of checks and their places in the data."""

from typing import Literal, NamedTuple

from actionprior.data import DataError
from actionprior.errors import UserError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Finding(NamedTuple):
    """One result of a check.

    Attributes:
        level: ``error`` (it spoils training), ``warning`` (look at it) or ``note`` (for
            information).
        check: Name of the check.
        robot: Name of the embodiment.
        dataset: Name of the robot's dataset.
        feature: Name of the feature, group or camera; empty for all.
        episode: Number of the episode in the dataset; -1 for all.
        frame: Row of the frame in the episode; -1 for all.
        message: What was found.
        episodes: All episodes that would have to be excluded because of this; empty if that
            would not help.
        advice: What to set, with options and lines of a recipe between backticks (``advice.py``);
            empty if there is nothing to do, or if ``message`` says it.
    """

    level: Level
    check: str
    robot: str
    dataset: str
    feature: str
    episode: int
    frame: int
    message: str
    episodes: tuple[int, ...] = ()
    advice: str = ""


def refusal(error: UserError, robot: str = "", dataset: str = "") -> Finding:
    """Convert an error that training would raise to a finding at the place that it names."""
    place = error if isinstance(error, DataError) else DataError(str(error))
    return Finding(
        "error", "refused", robot, dataset, place.feature, place.episode, place.frame, str(error)
    )
