"""Data modules of a robot whose recordings are one ``.npz`` file per episode.

Copy this file into your own folder, adapt it to your robot, and name its classes in recipes.
``npz_arm.NpzArm`` reads trajectories for Stage 1; ``npz_arm.NpzArmSeen`` adds images and
instructions for Stage 2. Besides NumPy and PyTorch it imports only ``actionprior``.
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
        folder: Folder of ``*.npz`` files with float arrays ``action`` and ``state`` (T, 7) [rad].
        kwargs: Arguments of :class:`EmbodiedDataModule`, such as ``batch_size`` and ``seed``.
    """

    def __init__(self, folder: str, **kwargs: int) -> None:
        super().__init__(**kwargs)
        self.folder = Path(folder)

    @property
    def embodiments(self) -> list[Embodiment]:
        """Describe the features, and their places in the unified spaces."""
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
        """Read all episodes; every tenth and the last are held out for validation."""
        files = sorted(self.folder.glob("*.npz"))
        if not files:
            raise DataError(f"{self.folder}: has no .npz file; expected one per episode")
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
    """The same robot with images and instructions, for Stage 2.

    Args:
        folder: Folder of ``*.npz`` files that also hold ``image`` (T, rows, columns, 3) uint8, at
            the size that the trunk needs, and ``task``, the instruction. Images stay in memory.
        kwargs: Arguments of :class:`EmbodiedDataModule`.
    """

    def read_frames(self) -> Frames:
        """Read the images and instructions as well, with one row per frame."""
        frames = super().read_frames()
        episodes = [np.load(f, allow_pickle=False) for f in sorted(self.folder.glob("*.npz"))]
        self.images = torch.from_numpy(np.concatenate([e["image"] for e in episodes]))
        self.tasks = [str(e["task"]) for e in episodes for _ in e["action"]]
        return frames

    def windows(self, training: bool) -> "NpzArmWindows":
        """Return the dataset that turns frames into batches."""
        return NpzArmWindows(self)


class NpzArmWindows(Dataset[VLABatch]):
    """Observations with the chunks that follow them, gathered in whole batches."""

    def __init__(self, data: NpzArmSeen) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.frames.store)

    def __getitems__(self, frames: Sequence[int]) -> VLABatch:
        """Return the observations of B frames, and the chunks that follow."""
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
