"""Choose which episodes of the robots' datasets train, and which validate."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from actionprior.data import DataError
from actionprior.data.store import split_episodes
from data_modules.lerobot.episodes import Episode, RobotDataset
from data_modules.lerobot.split_record import KnownEpisodes, SplitRecord, identities


@dataclass(frozen=True)
class EpisodeSplit:
    """Settings from which the split follows; see ``LeRobotTrajectories`` for their meaning.

    Attributes:
        robots: Names of the robots.
        seed: Seed of the split.
        val_fraction: Share of each robot's episodes that validates.
        held_out: Names of robots that validate and do not train.
        val_episodes: Numbers of the episodes that validate, by robot.
        max_episodes: Number of first episodes of each dataset, for all robots or by robot.
        max_episodes_per_task: Number of first episodes of each instruction.
    """

    robots: list[str]
    seed: int
    val_fraction: float
    held_out: list[str]
    val_episodes: dict[str, list[int]]
    max_episodes: int | dict[str, int] | None
    max_episodes_per_task: int | None

    def episodes(
        self,
        datasets: Sequence[RobotDataset],
        excluded: Sequence[set[int]],
        record: SplitRecord,
        checkpoint: str,
    ) -> list[Episode]:
        """List all episodes, ordered by dataset and frame.

        Args:
            datasets: Datasets of all robots.
            excluded: Episodes of each dataset that are not used.
            record: Split that ``checkpoint`` was trained with; its held-out episodes stay held
                out. Empty if there is none.
            checkpoint: Path of that checkpoint, for messages.

        Raises:
            DataError: ``val_episodes`` names an episode that is excluded or does not exist.
        """
        chosen = self._select(datasets, excluded)
        result = [e for e in chosen if not e.used]
        for robot, name in enumerate(self.robots):
            mine = [e for e in chosen if e.robot == robot and e.used]
            known = None
            if name in record:
                known = KnownEpisodes(record[name], identities(datasets, mine))
            if name in self.held_out:
                result += [e._replace(validation=True) for e in mine]
            elif known is not None and name not in self.val_episodes and self.val_fraction > 0:
                result += self._continued(robot, mine, known, checkpoint)
            else:
                split = mine if name in self.val_episodes else self._fresh(robot, mine)
                result += split
                if known is not None:
                    _warn_of_trained(name, split, known, checkpoint)
        ordered = sorted(result, key=lambda e: (e.dataset, e.start))
        for robot, columns in datasets:
            if columns.cuts:
                rank_zero_info(
                    f"{columns.root}: episodes are cut at {len(columns.cuts)} gaps in their "
                    f"timestamps that are longer than max_gap of {self.robots[robot]}"
                )
        return [part for e in ordered for part in _parts(e, datasets[e.dataset].columns.cuts)]

    def _select(
        self, datasets: Sequence[RobotDataset], excluded: Sequence[set[int]]
    ) -> list[Episode]:
        chosen = []
        seen: Counter[int] = Counter()  # a robot's episodes so far
        for dataset, (robot, columns) in enumerate(datasets):
            count, name = len(columns.lengths_E), self.robots[robot]
            validates = {
                number - seen[robot]
                for number in self.val_episodes.get(name, [])
                if seen[robot] <= number < seen[robot] + count
            }
            seen[robot] += count
            if lost := sorted(validates & excluded[dataset]):
                raise DataError(
                    f"{columns.root}: val_episodes names episode {lost[0]}, which is excluded "
                    "by exclude_episodes or because a video is missing; name another episode"
                )
            wanted = [e for e in range(count) if e not in excluded[dataset] | validates]
            most = self.max_episodes
            first = set(wanted[: most.get(name) if isinstance(most, dict) else most])
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
            count = seen[self.robots.index(name)]
            if beyond := [n for n in numbers if not 0 <= n < count]:
                raise DataError(
                    f"val_episodes names episode {beyond[0]} of {name!r}, which has {count} "
                    f"(0 to {count - 1})"
                )
        return chosen

    def _fresh(self, robot: int, mine: list[Episode]) -> list[Episode]:
        if len(mine) == 1 and self.val_fraction > 0:
            return _cut(mine[0], 1 - self.val_fraction)
        rng = np.random.default_rng([self.seed, robot])
        held = set(split_episodes(len(mine), self.val_fraction, rng).tolist())
        return [e._replace(validation=i in held) for i, e in enumerate(mine)]

    def _continued(
        self, robot: int, mine: list[Episode], known: KnownEpisodes, checkpoint: str
    ) -> list[Episode]:
        """Keep the sides of the episodes that the checkpoint knows, and split the new ones."""
        if not any(share < 1 for share in known.trained.values()):
            if known.trained:
                rank_zero_info(
                    f"{self.robots[robot]}: {checkpoint} held out none of the {len(mine)} episodes "
                    "that are used here, so they are split again"
                )
            return self._fresh(robot, mine)
        new = [i for i in range(len(mine)) if i not in known.trained]
        wanted = round(self.val_fraction * len(mine)) - (len(mine) - len(new) - known.training)
        rng = np.random.default_rng([self.seed, robot, len(mine)])
        order = rng.permutation(np.array(new, dtype=np.int64)).tolist()
        held = set(order[: max(0, wanted)])
        result = []
        for index, episode in enumerate(mine):
            if index in known.trained:
                result += _cut(episode, known.trained[index])
            else:
                result.append(episode._replace(validation=index in held))
        if known.differ:
            rank_zero_info(
                f"{self.robots[robot]}: the data have changed since {checkpoint}: {len(new)} "
                f"episodes are new ({len(held)} of them validate), {known.changed} have changed "
                f"and {known.gone} are gone or not used here; what it held out stays held out"
            )
        return result


def _parts(episode: Episode, cuts: Sequence[int]) -> list[Episode]:
    """Cut an episode at those of ``cuts``, frames of its dataset, that lie inside it."""
    inside = cuts[bisect_right(cuts, episode.start) : bisect_left(cuts, episode.stop)]
    ends = pairwise([episode.start, *inside, episode.stop])
    return [episode._replace(start=start, stop=stop) for start, stop in ends]


def _cut(episode: Episode, trained: float) -> list[Episode]:
    """Let the first share of an episode train, and the rest validate, each as an episode."""
    length = episode.stop - episode.start
    if trained in (0, 1) or length < 2:
        return [episode._replace(validation=trained == 0)]
    cut = episode.stop - min(max(1, round((1 - trained) * length)), length - 1)
    return [episode._replace(stop=cut), episode._replace(start=cut, validation=True)]


def _warn_of_trained(
    name: str, split: list[Episode], known: KnownEpisodes, checkpoint: str
) -> None:
    lost = [
        e.number for i, e in enumerate(split) if not e.validation and known.trained.get(i, 1) < 1
    ]
    if lost:
        rank_zero_warn(
            f"{name}: episodes {lost[:20]} train here, but {checkpoint} held them out; leave out "
            "val_episodes, with val_fraction above 0, to hold them out again"
        )
