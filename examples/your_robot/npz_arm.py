"""A robot whose recordings are no LeRobot dataset: one ``.npz`` file an episode.

Copy this file into your own folder, change what differs, and name its classes in recipes:
``npz_arm.NpzArm`` gives trajectories (Stage 1), ``npz_arm.NpzArmSeen`` images and instructions
with them (Stage 2). It imports ``actionprior`` alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from actionprior.batch import Observation, VLABatch
from actionprior.data import DataError, EmbodiedDataModule, Frames
from actionprior.data.frame_ranges import Spans
from actionprior.data.store import Recording, TrajectoryStore
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

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
                cameras=["image"],
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


class NpzArmSeen(NpzArm):
    """The same for Stage 2.

    Args:
        folder: the files also hold ``image`` (T, rows, columns, 3) uint8, at the size that the
            trunk takes, and ``task``, the instruction. Images are kept in memory.
        kwargs: as above.
    """

    def read_frames(self) -> Frames:
        """Also the images and instructions, a row a frame."""
        frames = super().read_frames()
        episodes = [np.load(f, allow_pickle=False) for f in sorted(self.folder.glob("*.npz"))]
        self.images = torch.from_numpy(np.concatenate([e["image"] for e in episodes]))
        self.tasks = [str(e["task"]) for e in episodes for _ in e["action"]]
        return frames

    def windows(self, training: bool) -> "Seen":
        """What turns frames into batches."""
        return Seen(self)


class Seen(Dataset[VLABatch]):
    """Observations with the chunk that followed; gathers whole batches."""

    def __init__(self, data: NpzArmSeen) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.frames.store)

    def __getitems__(self, frames: Sequence[int]) -> VLABatch:
        """B frames' observations: what is seen and said, the state, the past, and what follows."""
        data, at = self.data, torch.as_tensor(frames)
        around = data.frames.store.around(at, data.history_length, data.chunk_length)
        observation = Observation(
            images_BCKYX=data.images[at].permute(0, 3, 1, 2)[:, None],  # one camera
            camera_mask_BC=torch.ones(len(at), 1, dtype=torch.bool),
            task=[data.tasks[i] for i in frames],
            state_BS=around.future.state_BHS[:, 0],
            reference_BA=around.future.reference_BA,
            history=around.history,
            embodiment_B=around.future.embodiment_B,
        )
        return VLABatch(observation, around.future)
