"""What a rollout needs of a policy, and what it shows it: observations with their history.

Axes: B batch, H chunk or history steps, A = 37 action slots, S = 74 state slots, C cameras,
Y rows, X columns. Histories are laid out as in training: oldest pair at position 0, padding last.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment, FloatArray
from actionprior.rollout.results import EpisodeResult, Frame, jerk

# With no camera the batch holds no pixel at all; a real size lets convolutions pass it through.
_NO_CAMERA = (0, 64, 64, 3)


class ChunkPolicy(Protocol):
    """A policy that answers an observation with a chunk of actions."""

    @property
    def embodiments(self) -> list[Embodiment]:
        """The robots that it knows; ``Observation.embodiment_B`` indexes them."""

    @property
    def chunk_length(self) -> int:
        """Steps H of a chunk."""

    @property
    def history_length(self) -> int:
        """Past (state, action) pairs H_h that it looks at."""

    def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        """Actions (B, H, 37) in the robots' own units, integrated from the given flow noise."""


class Pair(NamedTuple):
    """A state and the action that was executed from it, in the robot's own order and units."""

    state: FloatArray  # (n_s,)
    action: FloatArray  # (n_a,)


@dataclass
class RunningEpisode:
    """One episode under way.

    Attributes:
        seed: of the environment's reset; with ``plans`` it fixes the flow noise.
        history_length: how many past pairs the policy is shown.
        plans: re-plannings so far.
        queue: robot actions (n_a,) still to be executed.
        pairs: all (state, action) executed so far.
    """

    seed: int
    history_length: int
    instruction: str = ""
    success: bool | None = None
    total_reward: float = 0.0
    plans: int = 0
    clipped: int = 0
    queue: deque[FloatArray] = field(default_factory=deque)
    pairs: list[Pair] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    @property
    def history(self) -> list[Pair]:
        """The last H_h pairs, oldest first; fewer at the episode's start."""
        return self.pairs[max(0, len(self.pairs) - self.history_length) :]

    def flow_noise(self, chunk_length: int) -> Tensor:
        """(H, 37) standard normal, a function of the seed and the number of the plan alone."""
        words = np.random.SeedSequence([self.seed, self.plans]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) >> 1)
        return torch.randn(chunk_length, ACTION_WIDTH, generator=generator, dtype=torch.float32)

    def result(self, embodiment: Embodiment) -> EpisodeResult:
        """The finished episode's result."""
        action_TA = np.stack([pair.action for pair in self.pairs])
        return EpisodeResult(
            seed=self.seed,
            instruction=self.instruction,
            success=bool(self.success),
            episode_return=self.total_reward,
            length=len(self.pairs),
            jerk=jerk(action_TA, embodiment),
            clipped_share=self.clipped / action_TA.size,
            latencies_s=self.latencies_s,
            state_Ts=np.stack([pair.state for pair in self.pairs]),
            frames=self.frames,
        )


def observe(
    episodes: Sequence[RunningEpisode],
    states: FloatArray,
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None,
    embodiment: Embodiment,
    index: int,
    device: torch.device | str,
) -> Observation:
    """The policy's input for episodes of one robot.

    Args:
        episodes: B of them, all with the same history length.
        states: (B, n_s) current states in ``embodiment.state_features`` order.
        images: (B, C, Y, X, 3) uint8, or None for a robot without cameras.
        embodiment: the robot.
        index: its place among the policy's embodiments.
        device: where the tensors go.
    """
    count = len(episodes)
    if images is None:
        images = np.zeros((count, *_NO_CAMERA), dtype=np.uint8)
    embodiment_B = torch.full((count,), index, dtype=torch.int64, device=device)
    return Observation(
        images_BCKYX=torch.from_numpy(images).to(device).movedim(-1, 2).contiguous(),
        camera_mask_BC=torch.ones(images.shape[:2], dtype=torch.bool, device=device),
        task=[episode.instruction for episode in episodes],
        state_BS=torch.from_numpy(embodiment.state_to_unified(states)).to(device),
        reference_BA=torch.from_numpy(embodiment.reference(states)).to(device),
        history=_history(episodes, embodiment, embodiment_B, device),
        embodiment_B=embodiment_B,
    )


def _history(
    episodes: Sequence[RunningEpisode],
    embodiment: Embodiment,
    embodiment_B: Tensor,
    device: torch.device | str,
) -> TrajectoryBatch:
    shape = (len(episodes), episodes[0].history_length)
    action_BHA = np.zeros((*shape, ACTION_WIDTH), dtype=np.float32)
    state_BHS = np.zeros((*shape, STATE_WIDTH), dtype=np.float32)
    reference_BA = np.zeros((shape[0], ACTION_WIDTH), dtype=np.float32)
    step_mask_BH = np.zeros(shape, dtype=np.bool_)
    for row, episode in enumerate(episodes):
        past = episode.history
        if not past:
            continue
        states = np.stack([pair.state for pair in past])
        actions = np.stack([pair.action for pair in past])
        state_BHS[row, : len(past)] = embodiment.state_to_unified(states)
        action_BHA[row, : len(past)] = embodiment.action_to_unified(actions)
        reference_BA[row] = embodiment.reference(states[0])
        step_mask_BH[row, : len(past)] = True
    return TrajectoryBatch(
        action_BHA=torch.from_numpy(action_BHA).to(device),
        state_BHS=torch.from_numpy(state_BHS).to(device),
        reference_BA=torch.from_numpy(reference_BA).to(device),
        step_mask_BH=torch.from_numpy(step_mask_BH).to(device),
        embodiment_B=embodiment_B,
    )
