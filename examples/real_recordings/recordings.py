"""Read published recordings of six robots, and note their flaws and the treatment.

Every reader returns a ``Recording``: vectors in the units of its embodiment in
``recipes/real/pretrain.yaml``, and notes on flaws. No value is changed without a note. Data that
cannot be used are excluded or refused.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float64]
CLOTH_HZ = 20  # rate onto which so101_bimanual_cloth is interpolated
HELD_SPAN = 3  # range of an entry, of 200, below which it counts as held still


class RecordingError(ValueError):
    """A recording is not as expected. The message names the file."""


@dataclass(frozen=True)
class Episode:
    """One episode, with a row per frame.

    Attributes:
        state: States (T, n_s).
        action: Actions (T, n_a); row t was commanded from row t of ``state``.
        task: Instruction.
        video: File of the camera, with a frame per row; None without a camera.
    """

    state: Vectors
    action: Vectors
    task: str
    video: Path | None = None


@dataclass
class Recording:
    """Episodes of one robot, ready to be written.

    Attributes:
        robot_type: Robot's type in the dataset's info.
        fps: Frames per second.
        state_names: Names of the state's elements.
        action_names: Names of the action's elements.
        episodes: Episodes in order.
        notes: Flaws and their treatment.
    """

    robot_type: str
    fps: int
    state_names: list[str]
    action_names: list[str]
    episodes: list[Episode]
    notes: list[str] = field(default_factory=list)


def g1_inspire(folder: Path, videos: bool) -> Recording:
    """Unitree G1 with two Inspire hands, LeRobot v2.1, rad and fingers 0-1, 30 Hz."""
    info = _json(folder / "meta" / "info.json")
    tasks = [" / ".join(row["tasks"]) for row in _json_lines(folder / "meta" / "episodes.jsonl")]
    names = list(np.array(info["features"]["action"]["names"]).reshape(-1))
    episodes, without, times = [], [], []
    for index, (table, task) in enumerate(zip(_tables(folder / "data"), tasks, strict=True)):
        name = f"observation.images.cam_high/episode_{index:06d}.mp4"
        video = folder / "videos" / "chunk-000" / name
        if not video.is_file():
            without.append(index)
        times.append(table["timestamp"])
        episodes.append(
            Episode(table["observation.state"], table["action"], task, video if videos else None)
        )
    notes = ["LeRobot v2.1, one parquet file per episode: rewritten as v3.0", _rate(times, info)]
    notes.append(f"head camera: the files of episodes {without} are missing, though meta lists all")
    if videos:
        episodes = [e for i, e in enumerate(episodes) if i not in without]
        notes.append(f"these {len(without)} episodes are excluded, the others keep their images")
    else:
        notes.append("images are excluded (--videos keeps them)")
    return Recording("unitree_g1_inspire", info["fps"], names, names, episodes, notes)


def so101_bimanual_cloth(folder: Path, videos: bool) -> Recording:
    """Two SO-101 arms moved by hand: servo ticks, sampled unevenly at about 18.5 Hz."""
    folder = folder / "dataset"
    info = _json(folder / "meta" / "info.json")
    tasks = [" / ".join(row["tasks"]) for row in _json_lines(folder / "meta" / "episodes.jsonl")]
    names = info["features"]["observation.state"]["names"]
    episodes, times, follows = [], [], True
    for table, task in zip(_tables(folder / "data"), tasks, strict=True):
        state = table["observation.state"]
        follows &= np.array_equal(table["action"][:-1], state[1:])
        times.append(table["timestamp"])
        state = (_resample(state, table["timestamp"], CLOTH_HZ) - 2048) * (2 * np.pi / 4096)
        episodes.append(Episode(state, np.concatenate([state[1:], state[-1:]]), task))
    if not follows:
        raise RecordingError(f"{folder}: action[t] is not state[t+1], which this reader relies on")
    stray = sorted(p.name for p in (folder / "data").rglob("episode_*") if p.suffix != ".parquet")
    notes = [
        _rate(times, info),
        f"states are interpolated linearly, by timestamp, onto a {CLOTH_HZ} Hz grid",
        "action[t] equals state[t+1] (moved by hand, no command): the same on the new grid, the "
        "last action is the last state",
        "servo ticks: converted to rad, (ticks - 2048) * 2 pi / 4096, grippers too",
        f"files without an ending are excluded: {stray}",
        "images are excluded: 5 of 25 episodes have them, one camera of episode 0 is black",
    ]
    return Recording("so101_bimanual", CLOTH_HZ, names, names, episodes, notes)


def piper_smolvla(folder: Path, videos: bool) -> Recording:
    """AgileX Piper led by an SO-101: 6 leader entries act on 7 follower entries."""
    recording = _v3(folder / "data", "piper_so101_leader")
    state = np.concatenate([e.state for e in recording.episodes])
    spans = zip(recording.state_names, np.ptp(state, axis=0), strict=True)
    held = [name for name, span in spans if span < HELD_SPAN]
    recording.notes += [
        f"the leader is another robot: actions {recording.action_names} control the follower's "
        f"{recording.state_names}; both are kept unchanged",
        f"held throughout (they span less than {HELD_SPAN} of 200): {held}",
    ]
    return recording


def so101_record_test(folder: Path, videos: bool) -> Recording:
    """SO-101 follower led by its leader, LeRobot-normalised."""
    return _v3(folder, "so101_follower")


def rebot_b601(folder: Path, videos: bool) -> Recording:
    """Seeed reBot B601-DM: degrees."""
    recording = _v3(folder / "data", "seeed_b601_dm_follower", unit="degrees")
    recording.episodes = [
        Episode(np.deg2rad(e.state), np.deg2rad(e.action), e.task) for e in recording.episodes
    ]
    recording.notes.append("degrees: converted to rad, the gripper too")
    return recording


def tiago_excitation(folder: Path, videos: bool) -> Recording:
    """PAL TIAGo, torso and arm: identification motion from one npz file."""
    path = folder / "tiago_excitation.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path}: cannot be read ({error})") from error
    names = [str(name) for name in data["names"]]
    state, action = data["state"].astype(np.float64), data["action"].astype(np.float64)
    starts = [0, *data["episode_ends"][:-1].tolist()]
    episodes = [
        Episode(state[a:b], action[a:b], str(task))
        for a, b, task in zip(starts, data["episode_ends"], data["tasks"], strict=True)
    ]
    follows = all(np.array_equal(e.action[:-1], e.state[1:]) for e in episodes)
    notes = [
        f"action[t] equals state[t+1]: {'yes' if follows else 'no'}; kept unchanged",
        "identification motion, no manipulation; torso in m, arm in rad: kept",
        "no timestamps: the file's frame rate is used",
    ]
    return Recording("pal_tiago", int(data["fps"]), names, names, episodes, notes)


READERS: dict[str, Callable[[Path, bool], Recording]] = {
    reader.__name__: reader
    for reader in (
        g1_inspire,
        so101_bimanual_cloth,
        piper_smolvla,
        so101_record_test,
        rebot_b601,
        tiago_excitation,
    )
}


def check(name: str, recording: Recording) -> None:
    """Refuse a recording that no conversion can repair.

    Raises:
        RecordingError: There is NaN, inf, an empty episode, or a vector of another width.
    """
    if not recording.episodes:
        raise RecordingError(f"{name}: holds no episode")
    for index, episode in enumerate(recording.episodes):
        for kind, names in (("state", recording.state_names), ("action", recording.action_names)):
            values = getattr(episode, kind)
            if values.ndim != 2 or len(values) == 0 or values.shape[1] != len(names):
                raise RecordingError(
                    f"{name}: {kind} of episode {index} has shape {values.shape}, "
                    f"expected (frames, {len(names)})"
                )
            if not np.isfinite(values).all():
                row, entry = np.argwhere(~np.isfinite(values))[0]
                raise RecordingError(
                    f"{name}: {kind} {names[entry]!r} is {values[row, entry]} at frame {row} of "
                    f"episode {index}"
                )


def _v3(root: Path, robot_type: str, unit: str = "") -> Recording:
    """Read a LeRobot v3.0 dataset that lerobot cannot open, because its videos are missing."""
    import pandas as pd

    info = _json(root / "meta" / "info.json")
    tasks = pd.read_parquet(root / "meta" / "tasks.parquet").sort_values("task_index").index
    state_names = info["features"]["observation.state"]["names"]
    action_names = info["features"]["action"]["names"]
    table = {k: np.concatenate(v) for k, v in _columns(_tables(root / "data")).items()}
    episodes, times = [], []
    for index in np.unique(table["episode_index"]):
        rows = table["episode_index"] == index
        task = str(tasks[int(table["task_index"][rows][0])])
        episodes.append(Episode(table["observation.state"][rows], table["action"][rows], task))
        times.append(table["timestamp"][rows])
    notes = [_rate(times, info)]
    if len(episodes) != info["total_episodes"]:
        notes.append(
            f"info claims {info['total_episodes']} episodes and {info['total_frames']} frames, "
            f"the data hold {len(episodes)} and {sum(map(len, times))}: these are written"
        )
    if cameras := [k for k, f in info["features"].items() if f["dtype"] == "video"]:
        notes.append(f"images are excluded: meta names {cameras}, their files are missing")
    if not unit:
        beyond = sum(int((np.abs(v) > 100).sum()) for e in episodes for v in (e.state, e.action))
        notes.append(
            f"LeRobot-normalised units are kept (-100 to 100, grippers 0 to 100); {beyond} values "
            "lie outside and are kept"
        )
    return Recording(robot_type, info["fps"], state_names, action_names, episodes, notes)


def _resample(values: Vectors, times: Vectors, hz: int) -> Vectors:
    """Interpolate linearly at 0, 1/hz, … up to the recording's end."""
    elapsed = times - times[0]
    if (np.diff(elapsed) <= 0).any():
        raise RecordingError("timestamps do not increase; they cannot be resampled by time")
    # The tolerance keeps a last step that floating point puts just before its grid point.
    grid = np.arange(int(elapsed[-1] * hz + 1e-6) + 1) / hz
    return np.stack([np.interp(grid, elapsed, column) for column in values.T], axis=1)


def _rate(times: list[Vectors], info: dict[str, Any]) -> str:
    rates = [1 / np.diff(t).mean() for t in times]
    steps = np.concatenate([np.diff(t) for t in times])
    return (
        f"info says {info['fps']} Hz; timestamps say {min(rates):.2f} to {max(rates):.2f} Hz "
        f"(steps of {steps.min():.4f} to {steps.max():.4f} s)"
    )


def _columns(tables: Iterator[dict[str, Vectors]]) -> dict[str, list[Vectors]]:
    columns: dict[str, list[Vectors]] = {}
    for table in tables:
        for key, values in table.items():
            columns.setdefault(key, []).append(values)
    return columns


def _tables(folder: Path) -> Iterator[dict[str, Vectors]]:
    """Yield the columns of each parquet file, in the order of the file names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.rglob("*.parquet"))
    if not paths:
        raise RecordingError(f"{folder}: holds no parquet file")
    for path in paths:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise RecordingError(f"{path}: cannot be read ({error})") from error
        yield {key: _numbers(table[key].combine_chunks(), path) for key in table.column_names}


def _numbers(column: Any, path: Path) -> Vectors:  # noqa: ANN401  an arrow array
    """Convert a column to (N,), or a column of vectors to (N, n)."""
    vectors = hasattr(column, "flatten")
    flat = column.flatten() if vectors else column
    numbers: Vectors = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    if column.null_count or (vectors and len(numbers) % len(column)):
        raise RecordingError(f"{path}: has empty or ragged rows")
    return numbers.reshape(len(column), -1) if vectors else numbers


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path}: cannot be read ({error})") from error
    return found


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path}: cannot be read ({error})") from error
