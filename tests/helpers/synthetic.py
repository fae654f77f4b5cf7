"""DataModules in memory, as a user would write them, without files or a simulator."""

from collections.abc import Sequence

import numpy as np
import torch

from actionprior.batch import Observation, TrajectoryBatch, VLABatch
from actionprior.data import EmbodiedDataModule, Frames
from actionprior.data.frame_ranges import Spans
from actionprior.data.store import Recording, TrajectoryStore
from actionprior.embodiment import Embodiment
from actionprior.networks.trunks.base import Trunk, TrunkTokens
from tests.helpers.robots import delta_arm, position_arm


def reaching(robot: Embodiment, episodes: int, seed: int) -> Recording:
    """Make straight reaches to random joint targets with smooth speed, 20 steps each."""
    rng = np.random.default_rng(seed)
    steps, n = 20, len(robot.state_features)
    start, goal = rng.uniform(-1, 1, (2, episodes, 1, n)).astype(np.float32)
    ease = (1 - np.cos(np.linspace(0, np.pi, steps + 1, dtype=np.float32)))[None, :, None] / 2
    path = start + (goal - start) * ease
    deltas = robot.delta_mask().any()
    action = np.diff(path, axis=1) if deltas else path[:, 1:]
    if deltas:
        action[..., -1] = path[:, 1:, -1] > 0  # the gripper
    return Recording(
        action.reshape(-1, n), path[:, :-1].reshape(-1, n), np.full(episodes, steps, np.int64)
    )


class ToyTrajectories(EmbodiedDataModule):
    """Reaching motions of two arms."""

    def __init__(self, episodes: int = 24, robots: str = "both", **kwargs: int) -> None:
        super().__init__(**{"batch_size": 32, **kwargs})
        self.episodes = episodes
        both = [delta_arm(), position_arm()]
        self.robots = {"both": both, "delta": both[:1], "position": both[1:]}[robots]

    @property
    def embodiments(self) -> list[Embodiment]:
        return self.robots

    def read_frames(self) -> Frames:
        recordings = [(i, reaching(r, self.episodes, 10 + i)) for i, r in enumerate(self.robots)]
        store = TrajectoryStore(self.robots, recordings)
        held_out = (np.arange(len(store)) // 20) % 6 == 0
        return Frames(store, Spans.where(~held_out), Spans.where(held_out))


class _Seen(torch.utils.data.Dataset):
    """Windows with an image whose brightness is the final position of the first joint."""

    def __init__(self, store: TrajectoryStore, chunk: int, history: int) -> None:
        self.store, self.chunk, self.past = store, chunk, history

    def __len__(self) -> int:
        return len(self.store)

    def __getitems__(self, frames: Sequence[int]) -> VLABatch:
        at = torch.as_tensor(frames)
        future: TrajectoryBatch = self.store.future(at, self.chunk)
        slot_B1 = torch.where(future.embodiment_B == 0, 8, 16)[:, None]
        last = at // 20 * 20 + 19  # episodes of 20 steps
        goal = self.store.states(last).gather(1, slot_B1)[:, 0].clamp(-1, 1)
        level = (127 + 120 * goal).to(torch.uint8)
        images = level[:, None, None, None, None].expand(-1, 1, 3, 64, 64).contiguous()
        observation = Observation(
            images_BCKYX=images,
            camera_mask_BC=torch.ones(len(at), 1, dtype=torch.bool),
            task=["reach the grey wall"] * len(at),
            state_BS=future.state_BHS[:, 0],
            reference_BA=future.reference_BA,
            history=self.store.history(at, self.past),
            embodiment_B=future.embodiment_B,
        )
        return VLABatch(observation, future, self.store.states(last))


class ToyVLA(ToyTrajectories):
    """Reaching motions of two arms, with a camera and an instruction."""

    def windows(self, training: bool) -> _Seen:
        return _Seen(self.frames.store, self.chunk_length, self.history_length)


class BrightnessTrunk(Trunk):
    """Trunk with one token per camera, its mean colour, and one of the instruction's length."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, self.lr_scale = width, 0.5
        self.see, self.read = torch.nn.Linear(3, width), torch.nn.Linear(1, width)

    def forward(
        self, images_BCKYX: torch.Tensor, camera_mask_BC: torch.Tensor, task: list[str]
    ) -> TrunkTokens:
        colours = images_BCKYX.float().mean((-2, -1)) / 127.5 - 1
        words = torch.tensor([[float(len(t))] for t in task]) / 20
        tokens = torch.cat([self.see(colours), self.read(words)[:, None]], dim=1)
        return TrunkTokens(tokens, torch.nn.functional.pad(camera_mask_BC, (0, 1), value=True))

    def init_args(self) -> dict[str, int]:
        return {"width": self.width}
