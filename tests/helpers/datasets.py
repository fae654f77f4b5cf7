"""Tiny real LeRobot datasets: written by lerobot in format v3, and converted to v2.1 or v2.0."""

import json
import shutil
from pathlib import Path

import numpy as np

from actionprior.embodiment import ActionGroup, StateGroup
from actionprior.recording.lerobot_writer import restored_scheduling
from data_modules.lerobot.columns import LeRobotEmbodiment
from data_modules.trajectories import RobotMixture
from data_modules.vla import ImageSettings

STATE = ["j1", "j2", "grip"]
ACTION = ["j1", "j2", "grip"]
DATA_GROUPS = {"mixture": RobotMixture, "images": ImageSettings}
CAMERAS = ("observation.images.front", "observation.images.wrist")


def arm(
    *roots: Path, name: str = "arm", cameras: tuple[str, ...] = (), **more
) -> LeRobotEmbodiment:
    """Describe the robot of ``write_dataset``."""
    return LeRobotEmbodiment(
        name=name,
        control_hz=more.pop("control_hz", 10),
        action=[
            ActionGroup("arm", "joints", ["j1", "j2"], "joint_position", "rad", 0, "joints"),
            ActionGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        state=[
            StateGroup("joints", "joints", ["j1", "j2"], "position", "rad"),
            StateGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        cameras=list(cameras),
        roots=[str(root) for root in roots],
        **more,
    )


def write_dataset(
    root: Path,
    lengths: tuple[int, ...] = (12, 7, 9),
    *,
    fps: int = 10,
    cameras: dict[str, str] | None = None,
    tasks: tuple[str, ...] = ("push the cube", "lift the cube"),
    names: list[str] | dict[str, list[str]] | None = ACTION,
    size: tuple[int, int] = (32, 48),
    sizes: dict[str, tuple[int, int]] | None = None,
    still: tuple[int, ...] = (),
    seed: int = 0,
    split_videos: bool = False,
) -> Path:
    """Write random smooth episodes; ``cameras`` maps image keys to ``image`` or ``video``.

    Episodes in ``still`` do not move. ``split_videos`` gives each episode its own video file.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = {"dtype": "float32", "shape": (3,), "names": names}
    features = {"observation.state": vector, "action": dict(vector)}
    sizes = sizes or {}
    for key, kind in (cameras or {}).items():
        shape = (*sizes.get(key, size), 3)
        features[key] = {"dtype": kind, "shape": shape, "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        repo_id=root.name,
        fps=fps,
        features=features,
        root=root,
        use_videos="video" in (cameras or {}).values(),
        video_backend="pyav",
    )
    if split_videos:
        dataset.meta.update_chunk_settings(video_files_size_in_mb=1e-9)
    rng = np.random.default_rng(seed)
    for episode, length in enumerate(lengths):
        motion = 0.0 if episode in still else 0.1
        path = (rng.normal(size=(length + 1, 3)) * motion).cumsum(0).astype(np.float32)
        for t in range(length):
            frame = {"observation.state": path[t], "action": path[t + 1]}
            for key, feature in features.items():
                if key in (cameras or {}):
                    frame[key] = _picture(feature["shape"], episode, t)
            dataset.add_frame({**frame, "task": tasks[episode % len(tasks)]})
        with restored_scheduling():
            dataset.save_episode()
    with restored_scheduling():
        dataset.finalize()
    shutil.rmtree(root / "images", ignore_errors=True)
    return root


def write_vectors(
    root: Path,
    vectors: dict[str, tuple[int, list[str] | None]],
    fps: int,
    cameras: tuple[str, ...],
    lengths: tuple[int, ...] = (40, 30),
) -> Path:
    """Write smooth episodes of vectors of given widths and names, with small images."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features: dict[str, dict] = {
        key: {"dtype": "float32", "shape": (width,), "names": names}
        for key, (width, names) in vectors.items()
    }
    for camera in cameras:
        names = ["height", "width", "channels"]
        features[camera] = {"dtype": "image", "shape": (32, 32, 3), "names": names}
    dataset = LeRobotDataset.create(
        repo_id=root.name, fps=fps, features=features, root=root, use_videos=False
    )
    rng = np.random.default_rng(0)
    for episode, length in enumerate(lengths):
        paths = {
            key: (0.05 * rng.normal(size=(length, width))).cumsum(0).astype(np.float32)
            for key, (width, _) in vectors.items()
        }
        for t in range(length):
            frame = {key: path[t] for key, path in paths.items()}
            frame |= {camera: _picture((32, 32, 3), episode, t) for camera in cameras}
            dataset.add_frame({**frame, "task": "push the cube"})
        with restored_scheduling():
            dataset.save_episode()
    with restored_scheduling():
        dataset.finalize()
    shutil.rmtree(root / "images", ignore_errors=True)
    return root


def write_v2(source: Path, root: Path, version: str = "v2.1") -> Path:
    """Convert a v3 dataset to format v2.1 or v2.0; it has one video per episode, or none."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet as pq

    info = json.loads((source / "meta" / "info.json").read_text())
    info |= {
        "codebase_version": version,
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    }
    table = pq.read_table(next((source / "data").glob("*/*.parquet")))
    places = pq.read_table(next((source / "meta" / "episodes").glob("*/*.parquet"))).to_pylist()
    tasks = pq.read_table(source / "meta" / "tasks.parquet").to_pandas().reset_index()
    written: dict[str, list[str]] = {
        "tasks": [row.to_json() for _, row in tasks.iterrows()],
        "episodes": [],
    }
    for place in places:
        episode = place["episode_index"]
        where = {"episode_chunk": episode // 2, "episode_index": episode}
        line = {"episode_index": episode, "tasks": place["tasks"], "length": place["length"]}
        written["episodes"].append(json.dumps(line))
        data = root / info["data_path"].format(**where)
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.compute.equal(table["episode_index"], episode)), data)
        for camera in (k for k, f in info["features"].items() if f["dtype"] == "video"):
            file = f"chunk-{place[f'videos/{camera}/chunk_index']:03d}/file-"
            file += f"{place[f'videos/{camera}/file_index']:03d}.mp4"
            video = root / info["video_path"].format(video_key=camera, **where)
            video.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / "videos" / camera / file, video)
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text(json.dumps(info))
    for name, lines in written.items():
        (root / "meta" / f"{name}.jsonl").write_text("\n".join(lines))
    return root


def _picture(shape: tuple[int, int, int], episode: int, t: int) -> np.ndarray:
    """Draw a gradient that differs by episode and step."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    channels = [rows * 4 + 16 * t, columns * 3 + 40 * episode, rows + columns + 8 * t]
    return (np.stack(channels, -1) % 256).astype(np.uint8)
