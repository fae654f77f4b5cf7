"""Chunks of noise in place of motion: a control prior that learns no more than scales.

Axes: B batch, H steps, A = 37 action slots, E embodiments, F = 37 + 74
features of a step, U those of them that vary on some robot.
"""

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import TrajectoryBatch
from actionprior.data.pseudo_random import mix


class ChunkNoise:
    """Draws actions and states of real windows' mean and scale, independent at every step.

    What is drawn is the form that actions are learnt in: what deltas add up to over the window,
    position-like actions relative to the window's reference, which stays the real one. (Entries
    of a rotation vector are drawn one by one.)

    Args:
        samples: real windows of each embodiment, in the order of ``embodiment_B``; they give
            each slot its mean and its standard deviation, 0 where the slot is not used.
        delta_mask_EA: bool (E, 37), slots that hold per-step deltas.
        seed: the draws are a function of it and of the window's first frame alone.
    """

    def __init__(self, samples: list[TrajectoryBatch], delta_mask_EA: Tensor, seed: int) -> None:
        self.delta_mask_EA = delta_mask_EA
        self.seed = seed
        moments = [
            _moments(_learnt(sample, delta_A.expand(len(sample.action_BHA), -1)), sample)
            for sample, delta_A in zip(samples, delta_mask_EA, strict=True)
        ]
        self.mean_EF, self.std_EF = (torch.stack(m) for m in zip(*moments, strict=True))
        self.used = (self.std_EF > 0).any(0).nonzero()[:, 0]  # slots that need a draw

    def replace(self, batch: TrajectoryBatch, frames_B: Tensor) -> TrajectoryBatch:
        """The batch with its actions and states replaced; masks and references stay."""
        width = batch.action_BHA.shape[-1]
        robots_B, delta_BA = batch.embodiment_B, self.delta_mask_EA[batch.embodiment_B][:, None]
        normal_BHU = _normal(self.seed, frames_B, (*batch.step_mask_BH.shape, len(self.used)))
        drawn_BHF = self.mean_EF[robots_B][:, None].repeat(1, normal_BHU.shape[1], 1)
        drawn_BHF[..., self.used] += self.std_EF[:, self.used][robots_B][:, None] * normal_BHU
        learnt_BHA, state_BHS = drawn_BHF[..., :width], drawn_BHF[..., width:]
        steps_BHA = learnt_BHA.diff(dim=1, prepend=torch.zeros_like(learnt_BHA[:, :1]))
        placed_BHA = learnt_BHA + batch.reference_BA[:, None]
        return batch._replace(
            action_BHA=torch.where(delta_BA, steps_BHA, placed_BHA), state_BHS=state_BHS.clone()
        )


def _learnt(batch: TrajectoryBatch, delta_BA: Tensor) -> Tensor:
    relative_BHA = batch.action_BHA - batch.reference_BA[:, None]
    return torch.where(delta_BA[:, None], batch.action_BHA.cumsum(1), relative_BHA)


def _moments(learnt_BHA: Tensor, batch: TrajectoryBatch) -> tuple[Tensor, Tensor]:
    values_NF = torch.cat([learnt_BHA, batch.state_BHS], dim=-1)[batch.step_mask_BH]
    return values_NF.mean(0), values_NF.std(0, correction=0)


def _normal(seed: int, frames_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (B, …) by Box and Muller's transform, the same for a frame anywhere.

    Source: Box and Muller, Annals of Mathematical Statistics 29, 1958.
    """
    count = int(np.prod(shape[1:]))
    words = mix(seed, frames_B.numpy()[:, None], np.arange(count))
    half = np.uint64(32)
    first = ((words >> half).astype(np.float64) + 1) / 2**32  # above 0: it goes into a logarithm
    second = (words & np.uint64(2**32 - 1)).astype(np.float64) / 2**32
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(normal.astype(np.float32).reshape(shape))
