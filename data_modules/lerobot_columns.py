"""Actions, states and tasks of a LeRobot v3 dataset, without touching its images or videos.

lerobot itself accepts NaN, a frame rate that timestamps contradict, and missing files (it then
asks the hub); what we train on is checked here, and refused in one sentence.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actionprior.data import DataError
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.permutation import IntArray

FPS_TOLERANCE = 0.05
"""Relative; a real recording that says 20 Hz and runs at 18.5 Hz must be noticed."""
ROW_COLUMNS = ("episode_index", "timestamp", "task_index")


@dataclass
class LeRobotEmbodiment(Embodiment):
    """A robot and the LeRobot datasets that hold its recordings.

    Attributes:
        roots: folders of datasets on this machine.
        repo_ids: datasets on the Hugging Face hub, downloaded (without videos for Stage 1) or
            found under ``HF_LEROBOT_HOME``.
        trust_fps: say so to use a dataset whose timestamps contradict its frame rate: its
            frames are then taken to be 1 / ``control_hz`` apart.
        how_to_get: told to a user who lacks one of ``roots``.
    """

    roots: list[str] = field(default_factory=list)
    repo_ids: list[str] = field(default_factory=list)
    trust_fps: bool = False
    how_to_get: str = ""


@dataclass(frozen=True)
class Columns:
    """One dataset's frames, checked, in the order of the robot's features.

    Attributes:
        root: the dataset's folder.
        info: its ``meta/info.json``.
        episodes: its episode table, a row an episode (lerobot's names), without statistics.
        action_Na, state_Ns: float32, raw.
        lengths_E: int64 (E,).
        tasks_E: instruction of each episode's first frame.
        task_N: int64 (N,), index into ``tasks``.
        tasks: instructions.
        timestamp_N: float64 (N,), seconds from the episode's start.
    """

    root: Path
    info: dict[str, Any]
    episodes: list[dict[str, Any]]
    action_Na: FloatArray
    state_Ns: FloatArray
    lengths_E: IntArray
    task_N: IntArray
    tasks: list[str]
    timestamp_N: npt.NDArray[np.float64]

    @property
    def starts_E(self) -> IntArray:
        """First frame of each episode."""
        return np.cumsum(self.lengths_E) - self.lengths_E

    def episode_at(self, frame: int) -> tuple[int, int]:
        """The episode that a frame is in, and the frame's row in it."""
        episode = int(np.searchsorted(self._stops_E, frame, side="right"))
        return episode, frame - int(self._stops_E[episode] - self.lengths_E[episode])

    def task_at(self, frame: int) -> str:
        """Instruction at a frame."""
        return self.tasks[self.task_N[frame]]

    @cached_property
    def _stops_E(self) -> IntArray:
        return np.cumsum(self.lengths_E)

    @property
    def tasks_E(self) -> list[str]:
        """Instruction at each episode's first frame."""
        return [self.tasks[i] for i in self.task_N[self.starts_E]]


def locate(repo_id: str, videos: bool) -> Path:
    """The folder of a hub dataset, downloaded unless lerobot's home already has it.

    Raises:
        DataError: it is neither on this machine nor to be had from the hub.
    """
    from huggingface_hub import snapshot_download
    from lerobot.utils.constants import HF_LEROBOT_HOME, HF_LEROBOT_HUB_CACHE

    home = Path(HF_LEROBOT_HOME) / repo_id
    if (home / "meta" / "info.json").is_file():
        return home
    patterns = ["meta/**", "data/**", *(["videos/**"] if videos else [])]
    try:
        return Path(
            snapshot_download(
                repo_id,
                repo_type="dataset",
                revision="v3.0",  # lerobot tags its datasets with their format
                cache_dir=HF_LEROBOT_HUB_CACHE,
                allow_patterns=patterns,
            )
        )
    except Exception as error:
        raise DataError(f"dataset {repo_id!r} cannot be had from the hub: {error}") from error


def read_columns(root: str | Path, robot: LeRobotEmbodiment) -> Columns:
    """Read and check what Stage 1 needs of one dataset.

    Raises:
        DataError: the dataset is missing, of another format version, unreadable, empty, in
            contradiction with itself or with the embodiment, or holds NaN or inf.
    """
    root = Path(root)
    if not root.is_dir():
        advice = robot.how_to_get or "record or convert it first"
        raise DataError(f"{root}: there is no such dataset folder; {advice}")
    info = _read_info(root)
    _check_rate(root, info, robot)
    columns = {
        "action": _choose(root, info, robot.action_key, robot.action_features, robot.ignored),
        "state": _choose(root, info, robot.state_key, robot.state_features, robot.ignored),
    }
    episodes, tasks = _read_metadata(root, info)
    rows = _read_rows(root, [robot.action_key, robot.state_key])
    lengths_E = _check_episodes(root, info, episodes, rows["episode_index"])
    if rows["task_index"].max() >= len(tasks) or rows["task_index"].min() < 0:
        raise DataError(f"{root}: a frame has a task_index that meta/tasks.parquet does not name")
    result = Columns(
        root=root,
        info=info,
        episodes=episodes,
        action_Na=_vectors(root, robot.action_key, rows, info, columns["action"]),
        state_Ns=_vectors(root, robot.state_key, rows, info, columns["state"]),
        lengths_E=lengths_E,
        task_N=rows["task_index"].astype(np.int64),
        tasks=tasks,
        timestamp_N=rows["timestamp"].astype(np.float64),
    )
    _check_finite(result, robot)
    if not robot.trust_fps:
        _check_timestamps(result, robot)
    return result


def feature_names(feature: dict[str, Any]) -> list[str]:
    """Names of a vector's entries; "0", "1", … where the dataset gives none."""
    names = feature.get("names")
    if isinstance(names, dict) and all(isinstance(v, int) for v in names.values()):
        return sorted(names, key=lambda name: int(names[name]))
    flat = list(_flatten(names)) if names else []
    return flat or [str(i) for i in range(int(np.prod(feature["shape"])))]


def _flatten(names: Any) -> Iterable[str]:  # noqa: ANN401  any nesting of lists and dicts
    if isinstance(names, str):
        yield names
    else:
        for part in names.values() if isinstance(names, dict) else names:
            yield from _flatten(part)


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DataError(f"{root}: has no meta/info.json, so it is not a LeRobot dataset")
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        version, features, fps = info["codebase_version"], info["features"], float(info["fps"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root}: meta/info.json is damaged or incomplete ({error!r})") from error
    if not str(version).startswith("v3."):
        raise DataError(
            f"{root}: is a LeRobot {version} dataset, expected v3.0; convert it with "
            "`python -m lerobot.scripts.convert_dataset_v21_to_v30`"
        )
    if not isinstance(features, dict) or not fps > 0:
        raise DataError(f"{root}: meta/info.json has fps {fps} and {len(features)} features")
    if not info.get("total_episodes") or not info.get("total_frames"):
        raise DataError(f"{root}: the dataset is empty (meta/info.json counts no episode or frame)")
    return info


def _check_rate(root: Path, info: dict[str, Any], robot: LeRobotEmbodiment) -> None:
    if float(info["fps"]) != robot.control_hz:
        raise DataError(
            f"{root}: has {info['fps']} frames a second, but embodiment {robot.name!r} "
            f"says control_hz {robot.control_hz:g}"
        )


def _choose(
    root: Path, info: dict[str, Any], key: str, wanted: list[str], ignored: list[str]
) -> IntArray:
    """Columns of the vector ``key`` that hold the ``wanted`` features."""
    if key not in info["features"]:
        raise DataError(f"{root}: has no {key!r}; it has {sorted(info['features'])}")
    feature = info["features"][key]
    names, width = feature_names(feature), int(np.prod(feature["shape"]))
    if len(names) != width:
        raise DataError(f"{root}: {key!r} has {len(names)} names for {width} entries")
    if unknown := [name for name in wanted if name not in names]:
        raise DataError(f"{root}: {key!r} has no feature {unknown[0]!r}; it has {names}")
    if left := [name for name in names if name not in wanted and name not in ignored]:
        raise DataError(
            f"{root}: feature {left[0]!r} of {key!r} is neither mapped to a slot nor in the "
            "embodiment's `ignored`"
        )
    return np.array([names.index(name) for name in wanted], dtype=np.int64)


def _read_metadata(root: Path, info: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    # lerobot asks the hub where one of these is missing; the user must hear of it instead.
    if not (root / "meta" / "tasks.parquet").is_file():
        raise DataError(f"{root}: has no meta/tasks.parquet")
    if not any((root / "meta" / "episodes").glob("*/*.parquet")):
        raise DataError(f"{root}: has no episode table in meta/episodes")
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

    try:
        meta = LeRobotDatasetMetadata(root.name, root=root)
    except Exception as error:
        raise DataError(f"{root}: the metadata cannot be read ({error})") from error
    tasks = meta.tasks.sort_values("task_index")
    return list(meta.episodes), [str(task) for task in tasks.index]


def _read_rows(root: Path, vectors: list[str]) -> dict[str, npt.NDArray[Any]]:
    """The needed columns of all data files, concatenated."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted((root / "data").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{root}: has no data/*/*.parquet")
    tables = []
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            known = file.schema_arrow.names
            if missing := [c for c in (*vectors, *ROW_COLUMNS) if c not in known]:
                raise DataError(f"{path}: has no column {missing[0]!r}; it has {known}")
            tables.append(file.read(columns=[*vectors, *ROW_COLUMNS]))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: is truncated or not a parquet file ({error})") from error
    table = pa.concat_tables(tables)
    if table.num_rows == 0:
        raise DataError(f"{root}: the dataset is empty")
    rows: dict[str, npt.NDArray[Any]] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name not in vectors:
            rows[name] = column.to_numpy(zero_copy_only=False).reshape(-1)
            continue
        # A list column of equal lengths is its values, row by row.
        values = column.flatten() if hasattr(column, "flatten") else column
        if column.null_count or values.null_count or len(values) % table.num_rows:
            raise DataError(f"{root}: {name!r} has empty or ragged rows")
        rows[name] = values.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
    return rows


def _vectors(
    root: Path,
    key: str,
    rows: dict[str, npt.NDArray[Any]],
    info: dict[str, Any],
    columns: IntArray,
) -> FloatArray:
    width = int(np.prod(info["features"][key]["shape"]))
    if rows[key].shape[1] != width:
        raise DataError(
            f"{root}: {key!r} has {rows[key].shape[1]} entries in the data, "
            f"but {width} in meta/info.json"
        )
    return np.ascontiguousarray(rows[key][:, columns], dtype=np.float32)


def _check_episodes(
    root: Path,
    info: dict[str, Any],
    episodes: list[dict[str, Any]],
    episode_N: npt.NDArray[Any],
) -> IntArray:
    """Lengths of the episodes, once data, episode table and info agree on them."""
    lengths = np.array([e["length"] for e in episodes], dtype=np.int64)
    if len(episodes) != info["total_episodes"]:
        raise DataError(
            f"{root}: meta/info.json claims {info['total_episodes']} episodes, "
            f"but meta/episodes lists {len(episodes)}"
        )
    listed = np.repeat(np.array([e["episode_index"] for e in episodes]), lengths)
    if len(listed) != len(episode_N):
        raise DataError(
            f"{root}: meta/episodes counts {len(listed)} frames, but the data have {len(episode_N)}"
        )
    if (wrong := np.nonzero(listed != episode_N)[0]).size:
        raise DataError(
            f"{root}: frame {wrong[0]} is of episode {episode_N[wrong[0]]} in the data, "
            f"but of episode {listed[wrong[0]]} in meta/episodes"
        )
    return lengths


def _check_finite(columns: Columns, robot: LeRobotEmbodiment) -> None:
    for key, names, values in (
        (robot.action_key, robot.action_features, columns.action_Na),
        (robot.state_key, robot.state_features, columns.state_Ns),
    ):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            frame, entry = bad[0]
            episode = int(np.searchsorted(np.cumsum(columns.lengths_E), frame, side="right"))
            raise DataError(
                f"{columns.root}: {key!r} feature {names[entry]!r} is {values[frame, entry]} at "
                f"frame {frame - columns.starts_E[episode]} of episode {episode} "
                f"({len(bad)} such values)"
            )


def _check_timestamps(columns: Columns, robot: LeRobotEmbodiment) -> None:
    fps = float(columns.info["fps"])
    for episode, (start, length) in enumerate(
        zip(columns.starts_E, columns.lengths_E, strict=True)
    ):
        steps = np.diff(columns.timestamp_N[start : start + length])
        if len(steps) == 0:
            continue
        found = 1 / steps.mean() if steps.min() > 0 else 0.0
        if abs(found - fps) > FPS_TOLERANCE * fps:
            raise DataError(
                f"{columns.root}: meta/info.json says {fps:g} frames a second, but the timestamps "
                f"of episode {episode} say {found:.2f}; resample it, or set trust_fps on "
                f"embodiment {robot.name!r} to believe the frame rate"
            )
