"""Tiny real LeRobot v3 datasets, written by lerobot itself."""

import shutil
from pathlib import Path

import numpy as np

from actionprior.embodiment import ActionGroup, StateGroup
from data_modules.lerobot_columns import LeRobotEmbodiment

STATE = ["j1", "j2", "grip"]
ACTION = ["j1", "j2", "grip"]
CAMERAS = ("observation.images.front", "observation.images.wrist")


def arm(
    *roots: Path, name: str = "arm", cameras: tuple[str, ...] = (), **more
) -> LeRobotEmbodiment:
    """The robot of ``write_dataset``."""
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
) -> Path:
    """Random smooth episodes; ``cameras`` maps image keys to ``image`` or ``video``.

    Episodes in ``still`` do not move.
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
        dataset.save_episode()
    dataset.finalize()
    shutil.rmtree(root / "images", ignore_errors=True)
    return root


def _picture(shape: tuple[int, int, int], episode: int, t: int) -> np.ndarray:
    """A gradient that tells episode and step."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    channels = [rows * 4 + 16 * t, columns * 3 + 40 * episode, rows + columns + 8 * t]
    return (np.stack(channels, -1) % 256).astype(np.uint8)
