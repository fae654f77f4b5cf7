"""Lists of episodes that neither train nor validate, as ``lightning doctor`` writes them.

A list is a YAML file of episodes by robot and dataset: ``my_arm: {recordings/cups: [3, 17]}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actionprior.data import DataError
from actionprior.errors import shorten, shown

MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class ExcludedEpisodes:
    """Numbers of excluded episodes, by robot and dataset.

    Attributes:
        path: File of the list, for messages.
        numbers: Episodes by robot and by dataset. A dataset is named as in the recipe, or by its
            folder's name.
    """

    path: str = ""
    numbers: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict)

    def check_robots(self, names: list[str]) -> None:
        """Refuse a list that has no effect, because it names none of a recipe's robots.

        Raises:
            DataError: The list names other robots only.
        """
        if self.numbers and not set(self.numbers) & set(names):
            raise DataError(
                f"{self.path} names episodes of {', '.join(map(repr, self.numbers))}, and the "
                f"recipe has {', '.join(map(repr, names))}; correct the robot's name in the list"
            )

    def of(self, robot: str, places: list[str], place: str, count: int) -> set[int]:
        """Return the excluded episodes of a dataset.

        Args:
            robot: Name of the robot.
            places: All datasets of the robot, as the recipe names them.
            place: One of them.
            count: Number of its episodes.

        Raises:
            DataError: The list names a dataset that the robot does not have, or an episode that
                the dataset does not have.
        """
        listed = self.numbers.get(robot, {})
        if unknown := [d for d in listed if not any(_same(d, p) for p in places)]:
            raise DataError(
                f"{self.path} names the dataset {unknown[0]!r} of {robot!r}, which has "
                f"{', '.join(places)}; correct the name in the list, or remove it"
            )
        found = [
            numbers
            for name, numbers in listed.items()
            if name == place or (name not in places and _same(name, place))
        ]
        excluded = {number for numbers in found for number in numbers}
        if beyond := sorted(n for n in excluded if n >= count):
            raise DataError(
                f"{self.path} excludes episode {beyond[0]} of {place}, which has {count} "
                f"(0 to {count - 1}); write the list again with lightning doctor "
                f"--exclude_episodes {self.path}"
            )
        if len(excluded) == count:
            raise DataError(f"{self.path} excludes all {count} episodes of {place}; keep some")
        return excluded


def _same(name: str, place: str) -> bool:
    return name == place or Path(name).name == Path(place).name


def read_excluded(path: str | None) -> ExcludedEpisodes:
    """Read a list of excluded episodes; None excludes none.

    Raises:
        DataError: The file is missing, is no YAML, or holds something else.
    """
    import yaml

    if path is None:
        return ExcludedEpisodes()
    file = Path(path).expanduser()
    expected = "expected `robot: {dataset: [episodes]}`, as lightning doctor writes it"
    if not file.is_file():
        raise DataError(
            f"exclude_episodes is {path}, and there is no such file; lightning doctor "
            f"--exclude_episodes {path} writes it"
        )
    if file.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES >> 20} MiB, {expected}")
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a YAML file ({shorten(error)}); {expected}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {shown(content)}, {expected}")
    for robot, datasets in content.items():
        if not isinstance(robot, str) or not isinstance(datasets, dict):
            raise DataError(f"{path} has {shown(robot)}: {shown(datasets)}, {expected}")
        for dataset, numbers in datasets.items():
            whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
            if not isinstance(dataset, str) or not whole:
                raise DataError(
                    f"{path} has {shown(dataset)}: {shown(numbers)} of {robot!r}, {expected}"
                )
    return ExcludedEpisodes(str(path), content)
