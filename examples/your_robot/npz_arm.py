"""A robot whose recordings are no LeRobot dataset: one ``.npz`` file an episode.

Copy this file into your own folder, change what differs, and name the class in a recipe
(``class_path: npz_arm.NpzArm``). It imports ``actionprior`` alone.
"""

from pathlib import Path

import numpy as np

from actionprior.data import DataError, EmbodiedDataModule, Frames
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.spans import Spans
from actionprior.trajectories import Recording, TrajectoryStore

JOINTS = [f"joint_{i}" for i in range(1, 7)]


class NpzArm(EmbodiedDataModule):
    """Six joint targets and a gripper at 20 Hz.

    Args:
        folder: holds ``*.npz`` with ``action`` (T, 7) and ``state`` (T, 7) float arrays [rad].
        kwargs: of :class:`EmbodiedDataModule`: ``batch_size``, ``seed``, …
    """

    def __init__(self, folder: str, **kwargs: int) -> None:
        super().__init__(**kwargs)
        self.folder = Path(folder)

    @property
    def embodiments(self) -> list[Embodiment]:
        """What the features are, and where they go in the unified spaces."""
        return [
            Embodiment(
                name="npz_arm",
                control_hz=20,
                action=[
                    ActionGroup("arm", "joints", JOINTS, "joint_position", "rad", 0, "arm"),
                    ActionGroup("gripper", "joints", ["gripper"], "gripper", "", 7),
                ],
                state=[
                    StateGroup("arm", "joints", JOINTS, "position", "rad"),
                    StateGroup("gripper", "joints", ["gripper"], "gripper", "", 7),
                ],
            )
        ]

    def read_frames(self) -> Frames:
        """All episodes one after the other; every tenth, and the last, validates."""
        files = sorted(self.folder.glob("*.npz"))
        if not files:
            raise DataError(f"{self.folder}: has no .npz file; expected one an episode")
        episodes = [np.load(file, allow_pickle=False) for file in files]
        lengths = np.array([len(e["action"]) for e in episodes])
        action, state = (
            np.concatenate([e[key] for e in episodes]).astype(np.float32)
            for key in ("action", "state")
        )
        store = TrajectoryStore(self.embodiments, [(0, Recording(action, state, lengths))])
        held_out = np.arange(len(files)) % 10 == 0
        held_out[-1] = True
        train, val = (
            Spans(store.start_E[chosen], store.stop_E[chosen]) for chosen in (~held_out, held_out)
        )
        return Frames(store, train, val)
