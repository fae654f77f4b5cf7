"""Windows of one robot's data, as a policy sees them.

Axes: N windows, B rows of a batch, C cameras.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import Observation, TrajectoryBatch, VLABatch
from actionprior.data import EmbodiedDataModule
from actionprior.data.frame_ranges import IntArray, Spans
from actionprior.embodiment import Embodiment
from actionprior.errors import UserError

PART = 64  # windows that are read at once


class Windows(NamedTuple):
    """Observations and recorded chunks of one robot.

    Attributes:
        robot: The robot.
        observation: Observations; the robot's index is the policy's.
        future: Recorded chunks, with the policy's index.
        frame_N: int64 (N,), frames of the store at which the windows start.
        episode_N: int64 (N,), episodes of the store.
    """

    robot: Embodiment
    observation: Observation
    future: TrajectoryBatch
    frame_N: IntArray
    episode_N: IntArray

    def __len__(self) -> int:
        return len(self.observation.task)


def robot_spans(data: EmbodiedDataModule, robot: int, spans: Spans) -> Spans:
    """Restrict a set of frames to those of one robot."""
    ranges = data.frames.store.of_embodiment(robot)
    return Spans.join([spans.clip(r.start, r.stop) for r in ranges])


def evenly(spans: Spans, count: int) -> IntArray:
    """Choose up to ``count`` frames, evenly spaced over a set."""
    chosen = np.linspace(0, len(spans) - 1, min(count, len(spans))).round().astype(np.int64)
    return spans.frames(chosen) if len(spans) else np.empty(0, dtype=np.int64)


def gather(data: EmbodiedDataModule, index: int, frame_N: IntArray) -> Windows:
    """Read the windows that start at some frames.

    Args:
        data: Data module of Stage 2, already set up.
        index: Number of the robot among the policy's.
        frame_N: Frames of one robot.

    Raises:
        UserError: The data have no images.
    """
    source, parts = data.windows(training=False), []
    for first in range(0, len(frame_N), PART):
        batch = source.__getitems__(frame_N[first : first + PART].tolist())
        if not isinstance(batch, VLABatch):
            raise UserError(
                f"the windows of {type(data).__name__} have no images; a policy is diagnosed with "
                "the recipe of Stage 2 (--config)"
            )
        parts.append(batch)
    joined = join_batches(parts)
    observation, future = joined.observation, joined.future
    rows_N = torch.full((len(frame_N),), index, dtype=torch.int64)
    store = data.frames.store
    return Windows(
        robot=data.embodiments[int(store.embodiment_of(torch.from_numpy(frame_N[:1]))[0])],
        observation=observation._replace(
            embodiment_B=rows_N, history=observation.history._replace(embodiment_B=rows_N)
        ),
        future=future._replace(embodiment_B=rows_N),
        frame_N=frame_N,
        episode_N=np.searchsorted(store.stop_E, frame_N, side="right"),
    )


def join_batches(parts: list[VLABatch]) -> VLABatch:
    """Join batches along their rows."""
    observations = [part.observation for part in parts]
    histories = [o.history for o in observations]
    joined = Observation(
        images_BCKYX=torch.cat([o.images_BCKYX for o in observations]),
        camera_mask_BC=torch.cat([o.camera_mask_BC for o in observations]),
        task=[task for o in observations for task in o.task],
        state_BS=torch.cat([o.state_BS for o in observations]),
        reference_BA=torch.cat([o.reference_BA for o in observations]),
        history=TrajectoryBatch(*map(torch.cat, zip(*histories, strict=True))),
        embodiment_B=torch.cat([o.embodiment_B for o in observations]),
    )
    futures = [part.future for part in parts]
    return VLABatch(joined, TrajectoryBatch(*map(torch.cat, zip(*futures, strict=True))))


def select(observation: Observation, rows: Tensor | slice) -> Observation:
    """Select rows of an observation."""
    numbers = torch.arange(len(observation.task))[rows].tolist()
    return Observation(
        images_BCKYX=observation.images_BCKYX[rows],
        camera_mask_BC=observation.camera_mask_BC[rows],
        task=[observation.task[number] for number in numbers],
        state_BS=observation.state_BS[rows],
        reference_BA=observation.reference_BA[rows],
        history=select_steps(observation.history, rows),
        embodiment_B=observation.embodiment_B[rows],
    )


def select_steps(trajectory: TrajectoryBatch, rows: Tensor | slice) -> TrajectoryBatch:
    """Select rows of trajectories."""
    return TrajectoryBatch(*(values[rows] for values in trajectory))


def take(windows: Windows, rows: Tensor) -> Windows:
    """Select some of the windows."""
    return Windows(
        windows.robot,
        select(windows.observation, rows),
        select_steps(windows.future, rows),
        windows.frame_N[rows.numpy()],
        windows.episode_N[rows.numpy()],
    )


def other_episodes(episode_N: IntArray, seed: int = 0) -> Tensor | None:
    """Choose for each window one of another episode, int64 (N,); None if there is one episode."""
    if len(np.unique(episode_N)) < 2:
        return None
    rng = np.random.default_rng(seed)
    chosen = [int(rng.choice(np.nonzero(episode_N != episode)[0])) for episode in episode_N]
    return torch.tensor(chosen)
