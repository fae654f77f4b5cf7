"""Read and check the actions, states and tasks of a LeRobot dataset for an embodiment.

lerobot itself accepts NaN, and a frame rate that contradicts the timestamps. This module rejects
such data with an error of one sentence.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from actionprior.data import DataError
from actionprior.data.column_store import Column, StoreWriter
from actionprior.data.pseudo_random import IntArray
from actionprior.data.resampling import MAX_GAP, resample, unbroken_parts
from actionprior.embodiment import ActionGroup, Embodiment, EmbodimentError, StateGroup
from actionprior.embodiment.representations.base import Representation
from data_modules.lerobot.names import feature_names, vector_width
from data_modules.lerobot.source import AT_ONCE, read_episodes, read_info
from data_modules.lerobot.store import open_cached_store, open_dataset_store
from data_modules.lerobot.tasks import read_tasks

Groups = list[tuple[ActionGroup | StateGroup, Representation]]
FPS_TOLERANCE = 0.05
"""Relative tolerance of the frame rate. It detects a recording of 18.5 Hz that claims 20 Hz."""


@dataclass
class LeRobotEmbodiment(Embodiment):
    """A robot and the LeRobot datasets that hold its recordings.

    Attributes:
        roots: Folders of datasets on this machine, or URLs that fsspec reads (s3://bucket/set,
            hf://datasets/me/set@v3.0). Actions and states of a URL are copied once, without
            images. Its images are read from the URL.
        repo_ids: Datasets on the Hugging Face hub, each ``user/name`` or ``user/name@revision``
            (see ``hub.locate``). They are downloaded without videos for Stage 1.
        resample: Resample datasets to ``control_hz`` by their timestamps if their frame rate is
            another or contradicts the timestamps (``actionprior/data/resampling.py``).
        max_gap: Longest time between two frames [s] that ``resample`` bridges. A longer gap cuts
            the episode into parts, which windows never leave.
        video_urls: URLs of the videos of ``roots``, in the same order, if they are not in
            ``roots``. Each is a folder that fsspec reads and that holds ``videos``
            (s3://bucket/set, hf://datasets/me/set@v3.0).
        trust_fps: Assume that frames are 1 / fps apart, also in videos, even if the timestamps
            contradict the frame rate.
        depth_ranges: Depths that become black and white in images of more than 8 bits, by camera:
            [nearest, farthest] [m]. Depths beyond are clipped.
        other_wordings: Other wordings of instructions, by the instruction in the data. Each
            training observation of Stage 2 has the instruction or one of these, drawn at random.
        how_to_get: Advice for users who lack one of ``roots``, which ends the error message.
    """

    roots: list[str] = field(default_factory=list)
    repo_ids: list[str] = field(default_factory=list)
    resample: bool = False
    max_gap: float = MAX_GAP
    video_urls: list[str] = field(default_factory=list)
    trust_fps: bool = False
    depth_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    other_wordings: dict[str, list[str]] = field(default_factory=dict)
    how_to_get: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for camera, (near, far) in self.depth_ranges.items():
            if camera not in self.cameras or not 0 <= near < far < np.inf:
                raise EmbodimentError(
                    f"embodiment {self.name!r}: depth_ranges has {camera}: [{near}, {far}], "
                    f"expected one of its cameras {self.cameras} and 0 <= nearest < farthest [m]"
                )


@dataclass(frozen=True)
class Columns:
    """Checked frames of one dataset, in the order of the robot's features.

    Attributes:
        root: Folder of the dataset.
        info: Content of ``meta/info.json``.
        action_Na: Raw actions, float32, memory-mapped.
        state_Ns: Raw states, float32, memory-mapped.
        lengths_E: Lengths of the episodes, int64 (E,).
        task_N: Index of each frame's instruction in ``tasks``, int64 (N,), memory-mapped.
        tasks: Instructions.
        timestamp_N: Seconds from the episode's start, float64 (N,), memory-mapped.
        source: The recorded dataset, if these frames are resampled from it.
        source_row_N: Row of the recorded episode whose image each frame shows, int64 (N,).
        trust_fps: True if frames are 1 / fps apart regardless of the timestamps.
        cuts: Frames before which none was recorded for longer than ``max_gap``, ascending.
    """

    root: Path
    info: dict[str, Any]
    action_Na: Column
    state_Ns: Column
    lengths_E: IntArray
    task_N: Column
    tasks: list[str]
    timestamp_N: Column
    source: "Columns | None" = None
    source_row_N: Column | None = None
    trust_fps: bool = False
    cuts: tuple[int, ...] = ()

    @cached_property
    def stops_E(self) -> IntArray:
        """Index after the last frame of each episode."""
        return np.cumsum(self.lengths_E)

    @cached_property
    def starts_E(self) -> IntArray:
        """Index of the first frame of each episode."""
        return self.stops_E - self.lengths_E

    @property
    def tasks_E(self) -> list[str]:
        """Instructions at the episodes' first frames."""
        return [self.tasks[i] for i in self.task_N[self.starts_E]]

    @cached_property
    def episodes(self) -> list[dict[str, Any]]:
        """Episode table without statistics. It says where episodes are in videos."""
        return read_episodes(self.root, self.info, every_column=True)

    def episode_at(self, frame: int) -> tuple[int, int]:
        """Return the episode of a frame, and the frame's row in it."""
        episode = int(np.searchsorted(self.stops_E, frame, side="right"))
        return episode, frame - int(self.starts_E[episode])

    @property
    def recorded(self) -> "Columns":
        """The dataset as it was recorded, which holds the images."""
        return self.source or self

    def recorded_row(self, frame: int) -> int:
        """Return the row of the recorded episode that holds a frame's image."""
        if self.source_row_N is None:
            return self.episode_at(frame)[1]
        return int(self.source_row_N[frame])

    def task_at(self, frame: int) -> str:
        """Return the instruction at a frame."""
        return self.tasks[int(self.task_N[frame])]


def read_columns(root: str | Path, robot: LeRobotEmbodiment) -> Columns:
    """Open and check the columns of one dataset. Extract them first if necessary.

    Raises:
        DataError: The dataset is missing, unreadable, empty or of another format version, it
            contradicts itself or the embodiment, or it holds NaN or inf.
    """
    root = Path(root)
    if not root.is_dir():
        advice = robot.how_to_get or "record or convert it first"
        raise DataError(f"{root}: no such dataset folder; {advice}")
    info = read_info(root)
    if not robot.resample:
        _check_rate(root, info, robot)
    actions = _feature_indices(root, info, robot.action_key, robot.action_features, robot.ignored)
    states: IntArray = np.zeros(0, dtype=np.int64)
    if robot.state:
        states = _feature_indices(root, info, robot.state_key, robot.state_features, robot.ignored)
    # A robot without a state reads none; the store then holds the actions in place of states.
    stored_key = robot.state_key if robot.state else robot.action_key
    store = open_dataset_store(root, info, robot.action_key, stored_key)
    columns = store.columns
    result = Columns(
        root=root,
        info=info,
        action_Na=columns["action"].pick(actions),
        state_Ns=columns["state"].pick(states),
        lengths_E=columns["length"][:],
        task_N=columns["task"],
        # Not from the store, so that stores of versions that misread instructions stay valid.
        tasks=[*read_tasks(root, info).values()],
        timestamp_N=columns["timestamp"],
        trust_fps=robot.trust_fps,
    )
    for name, key, entries, features in (
        ("action", robot.action_key, actions, robot.action_features),
        ("state", robot.state_key, states, robot.state_features),
    ):
        _check_finite(result, key, store.about["not_finite"][name], entries, features)
    _check_usable(result, robot)
    rate_E = columns["rate"][:]
    if robot.resample:
        return _resampled_columns(result, rate_E, robot)
    if not robot.trust_fps:
        _check_timestamps(root, info, rate_E, robot)
    return result


def _resampled_columns(
    columns: Columns, rate_E: npt.NDArray[np.float64], robot: LeRobotEmbodiment
) -> Columns:
    """Resample frames to the robot's control rate, unless they have it, and cache the result.

    Raises:
        DataError: The timestamps of an episode do not increase.
    """
    fps = float(columns.info["fps"])
    off_E = np.abs(np.nan_to_num(rate_E, nan=fps) - robot.control_hz)
    parts = [_parts(columns, episode, robot) for episode in range(len(columns.lengths_E))]
    cut = sum(map(len, parts)) > len(parts)
    if fps == robot.control_hz and (robot.trust_fps or not (off_E > FPS_TOLERANCE * fps).any()):
        starts = zip(columns.starts_E.tolist(), parts, strict=True)
        return replace(columns, cuts=tuple(s + part.start for s, own in starts for part in own[1:]))
    groups = [asdict(g) for g in robot.action], [asdict(g) for g in robot.state]
    keys = f"{robot.action_key} {robot.state_key}"
    name = f"resampled {robot.control_hz} {robot.trust_fps} {keys} {groups}"
    name += f" cut {robot.max_gap}" if cut else ""
    stored = open_cached_store(
        columns.root, name, lambda store: _resample(columns, robot, parts, store)
    ).columns
    return replace(
        columns,
        action_Na=stored["action"],
        state_Ns=stored["state"],
        lengths_E=stored["length"][:],
        task_N=stored["task"],
        timestamp_N=stored["timestamp"],
        source=columns,
        source_row_N=stored["source_row"],
        cuts=tuple(stored["cut"][:].tolist()) if cut else (),
    )


def _parts(columns: Columns, episode: int, robot: LeRobotEmbodiment) -> list[slice]:
    """Return the rows of each part of an episode between which there are no long gaps.

    Raises:
        DataError: The timestamps do not increase.
    """
    rows = slice(int(columns.starts_E[episode]), int(columns.stops_E[episode]))
    if robot.trust_fps:
        return [slice(0, rows.stop - rows.start)]
    try:
        return unbroken_parts(columns.timestamp_N[rows], robot.max_gap)
    except ValueError as error:
        raise DataError(f"{columns.root}: episode {episode}: {error}") from error


def _resample(
    columns: Columns, robot: LeRobotEmbodiment, parts: list[list[slice]], store: StoreWriter
) -> None:
    lengths: list[int] = []
    cuts: list[int] = []
    total = 0  # new frames so far
    for episode, own in enumerate(parts):
        first, stop = int(columns.starts_E[episode]), int(columns.stops_E[episode])
        time_N = columns.timestamp_N[first:stop]
        if robot.trust_fps:
            time_N = np.arange(len(time_N)) / float(columns.info["fps"])
        start = total
        for part in own:
            rows = slice(first + part.start, first + part.stop)
            try:
                new = resample(
                    robot, columns.action_Na[rows], columns.state_Ns[rows], time_N[part], np.inf
                )
            except ValueError as error:
                raise DataError(f"{columns.root}: episode {episode}: {error}") from error
            store.append(
                {
                    "action": new.action_MA,
                    "state": new.state_MS,
                    "timestamp": new.time_M + (time_N[part.start] - time_N[0]),
                    "task": columns.task_N[rows][new.frame_M],
                    "source_row": part.start + new.frame_M,
                }
            )
            if part.start:
                cuts.append(total)
            total += len(new.time_M)
        lengths.append(total - start)
    store.append({"length": np.array(lengths, dtype=np.int64)})
    if cuts:
        store.append({"cut": np.array(cuts, dtype=np.int64)})


def _check_rate(root: Path, info: dict[str, Any], robot: LeRobotEmbodiment) -> None:
    if float(info["fps"]) != robot.control_hz:
        raise DataError(
            f"{root}: has {info['fps']} frames per second, but embodiment {robot.name!r} "
            f"has control_hz {robot.control_hz:g}; set `control_hz: {info['fps']}` or "
            "`resample: true` on the robot"
        )


def _feature_indices(
    root: Path, info: dict[str, Any], key: str, wanted: list[str], ignored: list[str]
) -> IntArray:
    """Return the indices of the ``wanted`` features in the vector ``key``."""
    if key not in info["features"]:
        raise DataError(f"{root}: has no {key!r}; it has {sorted(info['features'])}")
    feature = info["features"][key]
    try:
        names, width = feature_names(feature), vector_width(feature)
    except DataError as error:
        raise DataError(f"{root}: {key!r}: {error}") from error
    if len(names) != width:
        raise DataError(f"{root}: {key!r} has {len(names)} names for {width} entries")
    if unknown := [name for name in wanted if name not in names]:
        raise DataError(f"{root}: {key!r} has no feature {unknown[0]!r}; it has {names}")
    if left := [name for name in names if name not in wanted and name not in ignored]:
        raise DataError(
            f"{root}: feature {left[0]!r} of {key!r} is neither mapped to a slot nor in the "
            f"embodiment's `ignored`; map it, or set {_ignored([*ignored, *left])} on the robot"
        )
    return np.array([names.index(name) for name in wanted], dtype=np.int64)


def _ignored(features: list[str]) -> str:
    """Return the line of a recipe that excludes these features."""
    text = yaml.safe_dump({"ignored": features}, default_flow_style=True, width=10**6)
    return f"`{text.strip()[1:-1]}`"


def _check_finite(
    columns: Columns,
    key: str,
    bad: dict[str, list[Any]],
    entries: IntArray,
    features: list[str],
) -> None:
    for entry, feature in zip(entries.tolist(), features, strict=True):
        if str(entry) in bad:
            frame, value, count = bad[str(entry)]
            episode, row = columns.episode_at(frame)
            raise DataError(
                f"{columns.root}: {key!r} feature {feature!r} is {value} at frame {row} of "
                f"episode {episode} ({count} such values); no option repairs this: correct the "
                "episode in the dataset, or remove it",
                feature=f"{key} {feature}",
                episode=episode,
                frame=row,
            )


def _check_usable(columns: Columns, robot: LeRobotEmbodiment) -> None:
    """Reject values without meaning, such as zeros as an orientation before the first pose."""
    actions: Groups = list(zip(robot.action, robot.action_representations, strict=True))
    states: Groups = list(zip(robot.state, robot.state_representations, strict=True))
    for key, vectors_Nd, groups in (
        (robot.action_key, columns.action_Na, actions),
        (robot.state_key, columns.state_Ns, states),
    ):
        start = 0
        for group, representation in groups:
            entries = np.arange(start, start + len(group.features))
            start += len(group.features)
            if not representation.meaningless:
                continue
            for first in range(0, len(vectors_Nd), AT_ONCE):
                values_Nd = vectors_Nd[first : first + AT_ONCE][:, entries]
                bad_N = representation.unusable(values_Nd)
                if bad_N.any():
                    episode, row = columns.episode_at(first + int(bad_N.argmax()))
                    values = values_Nd[bad_N.argmax()].tolist()
                    raise DataError(
                        f"{columns.root}: {key!r} group {group.name!r} is "
                        f"{representation.meaningless} at frame {row} of episode {episode}: "
                        f"{values} as {group.encoding}; no option repairs this: correct the "
                        "episode in the dataset, or remove it",
                        feature=f"{key} {group.name}",
                        episode=episode,
                        frame=row,
                    )


def _check_timestamps(
    root: Path, info: dict[str, Any], rate_E: npt.NDArray[np.float64], robot: LeRobotEmbodiment
) -> None:
    fps = float(info["fps"])
    # An episode of one frame has no rate (NaN).
    wrong = np.nonzero(np.abs(np.nan_to_num(rate_E, nan=fps) - fps) > FPS_TOLERANCE * fps)[0]
    if len(wrong):
        raise DataError(
            f"{root}: meta/info.json says {fps:g} frames per second, but the timestamps "
            f"of episode {wrong[0]} say {rate_E[wrong[0]]:.2f}; on embodiment {robot.name!r}, set "
            "`resample: true` to use the timestamps, or `trust_fps: true` to use the frame rate",
            feature="timestamp",
            episode=int(wrong[0]),
        )
