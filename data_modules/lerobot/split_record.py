"""Recognise the episodes that a checkpoint was trained with, in a dataset that may have changed.

An episode is known by its content, or by its dataset's name and its number. So episodes that are
added, deleted, edited, renumbered or moved to another folder do not change the side of the others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_modules.lerobot.episodes import Episode, RobotDataset

SplitRecord = Mapping[str, Mapping[str, list[Any]]]
"""Split of a run, by robot, as plain data: for each used episode the name of its ``dataset``, its
``number`` there, its ``content`` and the share of its frames that ``trained``. ``absent`` episodes
were used by an earlier run from which this one started."""

SAMPLED = 5  # frames of an episode that stand for its content


class Identity(NamedTuple):
    """Marks by which an episode is recognised.

    Attributes:
        dataset: Name of the dataset's folder.
        number: Number of the episode there.
        content: Hash of the recorded actions and states.
    """

    dataset: str
    number: int
    content: str


class _Entry(NamedTuple):
    identity: Identity
    trained: float
    absent: bool


class KnownEpisodes:
    """Episodes of one robot that its part of a record knows.

    Args:
        record: Part of a ``SplitRecord``.
        present: Identity of each used episode.

    Attributes:
        trained: Share of the frames that trained, by index in ``present``, of known episodes.
        changed: Number of episodes that are known by number, with another content.
        gone: Number of recorded episodes that are not present.
    """

    def __init__(self, record: Mapping[str, list[Any]], present: Sequence[Identity]) -> None:
        # Absent episodes first, so that episodes of the latest run come last and win by number.
        recorded = sorted(_entries(record), key=lambda entry: not entry.absent)
        by_content: dict[str, list[float]] = defaultdict(list)
        for identity, share, _ in recorded:
            by_content[identity.content].append(share)
        contents = {identity.content for identity in present}
        by_number = {
            (identity.dataset, identity.number): share
            for identity, share, _ in recorded
            if identity.content not in contents
        }
        self.trained: dict[int, float] = {}
        self.changed = 0
        for index, identity in enumerate(present):
            if identity.content in by_content:
                # Of several copies, the one of which least was trained on.
                self.trained[index] = min(by_content[identity.content])
            elif (number := (identity.dataset, identity.number)) in by_number:
                self.trained[index] = by_number[number]
                self.changed += 1
        used = sum(not entry.absent for entry in recorded)
        self.gone = max(0, used - len(self.trained))
        self._new = len(present) - len(self.trained)

    @property
    def training(self) -> int:
        """Number of known episodes that trained wholly."""
        return sum(share == 1 for share in self.trained.values())

    @property
    def differ(self) -> bool:
        """True if an episode is new, changed or gone."""
        return bool(self._new or self.changed or self.gone)


def identities(datasets: Sequence[RobotDataset], episodes: Sequence[Episode]) -> list[Identity]:
    """Return the identity of each episode."""
    contents = {
        d: _contents(datasets[d], [e.number for e in episodes if e.dataset == d])
        for d in {e.dataset for e in episodes}
    }
    return [
        Identity(datasets[e.dataset].columns.root.name, e.number, contents[e.dataset][e.number])
        for e in episodes
    ]


def split_record(
    robots: Sequence[str],
    datasets: Sequence[RobotDataset],
    episodes: Sequence[Episode],
    earlier: SplitRecord,
) -> dict[str, Any]:
    """Describe a split for a checkpoint, as a ``SplitRecord``.

    Episodes and robots of an earlier run stay in the record, so that a later run which uses them
    again does not train on what that run held out.

    Args:
        robots: Names of the robots.
        datasets: Datasets of all robots.
        episodes: Split episodes; an episode that is cut in time counts as two.
        earlier: Record of the checkpoint that the run started from, or an empty one.
    """
    frames, trained = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for e in episodes:
        frames[e.dataset, e.number] += e.stop - e.start
        trained[e.dataset, e.number] += 0 if e.validation else e.stop - e.start
    used = list({(e.dataset, e.number): e for e in episodes if e.used}.values())
    record: dict[str, Any] = {}
    for name in dict.fromkeys([*robots, *earlier]):
        mine = [e for e in used if robots[e.robot] == name]
        found = identities(datasets, mine)
        present = {identity.content for identity in found}
        entries = [
            _Entry(identity, trained[e[1:3]] / max(1, frames[e[1:3]]), False)
            for identity, e in zip(found, mine, strict=True)
        ]
        entries += [
            entry._replace(absent=True)
            for entry in (_entries(earlier[name]) if name in earlier else [])
            if entry.identity.content not in present
        ]
        record[name] = {
            "dataset": [entry.identity.dataset for entry in entries],
            "number": [entry.identity.number for entry in entries],
            "content": [entry.identity.content for entry in entries],
            "trained": [entry.trained for entry in entries],
            "absent": [entry.absent for entry in entries],
        }
    return record


def _entries(record: Mapping[str, list[Any]]) -> list[_Entry]:
    columns = [record[key] for key in ("dataset", "number", "content", "trained")]
    columns.append(record.get("absent", [False] * len(record["number"])))
    return [
        _Entry(Identity(*marks), float(trained), bool(absent))
        for *marks, trained, absent in zip(*columns, strict=True)
    ]


def _contents(dataset: RobotDataset, numbers: list[int]) -> dict[int, str]:
    """Hash some frames of each episode as it was recorded, and its length."""
    columns = dataset.columns.recorded
    episode_E = np.array(numbers, dtype=np.int64)
    length_E = columns.lengths_E[episode_E]
    step_ES = (length_E - 1)[:, None] * np.arange(SAMPLED) // (SAMPLED - 1)
    frame_ES = columns.starts_E[episode_E][:, None] + step_ES
    action_ESa, state_ESs = columns.action_Na[frame_ES], columns.state_Ns[frame_ES]
    return {
        number: hashlib.blake2b(
            b"".join([str(length).encode(), action_Sa.tobytes(), state_Ss.tobytes()]),
            digest_size=8,
        ).hexdigest()
        for number, length, action_Sa, state_Ss in zip(
            numbers, length_E.tolist(), action_ESa, state_ESs, strict=True
        )
    }
