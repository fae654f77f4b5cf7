"""Chunks of noise in place of motion, for a control prior that learns scales and no motion.

Axes: B batch, H steps, A = 37 action slots, E embodiments, F = 37 + 74 features of a step,
U features that vary on some robot.
"""

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import TrajectoryBatch
from actionprior.data.pseudo_random import mix
from actionprior.embodiment.relative_actions import RelativeActions


class ChunkNoise:
    """Draw actions and states with the mean and scale of real windows, independent at each step.

    Actions are drawn in the ``noise_form`` of their representation: deltas as their running sum,
    targets relative to the window's real reference. The entries of a rotation vector are drawn
    independently.

    Args:
        samples: Real windows of each embodiment, in the order of ``embodiment_B``. Each slot
            takes their mean and standard deviation, which is 0 for unused slots.
        forms: Forms in which the robots' actions are drawn.
        seed: Seed of the draws. They depend only on it and on the window's first frame.
    """

    def __init__(self, samples: list[TrajectoryBatch], forms: RelativeActions, seed: int) -> None:
        self.forms = forms
        self.seed = seed
        moments = [_moments(self._learnt(sample), sample) for sample in samples]
        self.mean_EF, self.std_EF = (torch.stack(m) for m in zip(*moments, strict=True))
        self.used = (self.std_EF > 0).any(0).nonzero()[:, 0]  # slots that need a draw

    def replace(self, batch: TrajectoryBatch, frames_B: Tensor) -> TrajectoryBatch:
        """Replace the batch's actions and states; masks and references stay."""
        width = batch.action_BHA.shape[-1]
        robots_B = batch.embodiment_B
        normal_BHU = _normal(self.seed, frames_B, (*batch.step_mask_BH.shape, len(self.used)))
        drawn_BHF = self.mean_EF[robots_B][:, None].repeat(1, normal_BHU.shape[1], 1)
        drawn_BHF[..., self.used] += self.std_EF[:, self.used][robots_B][:, None] * normal_BHU
        learnt_BHA, state_BHS = drawn_BHF[..., :width], drawn_BHF[..., width:]
        return batch._replace(
            action_BHA=self.forms.absolute(learnt_BHA, batch.reference_BA, robots_B),
            state_BHS=state_BHS.clone(),
        )

    def _learnt(self, batch: TrajectoryBatch) -> Tensor:
        return self.forms.relative(batch.action_BHA, batch.reference_BA, batch.embodiment_B)


def _moments(learnt_BHA: Tensor, batch: TrajectoryBatch) -> tuple[Tensor, Tensor]:
    values_NF = torch.cat([learnt_BHA, batch.state_BHS], dim=-1)[batch.step_mask_BH]
    return values_NF.mean(0), values_NF.std(0, correction=0)


def _normal(seed: int, frames_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers (B, …) that depend only on seed and frame.

    Method: Box and Muller, Annals of Mathematical Statistics 29, 1958.
    """
    count = int(np.prod(shape[1:]))
    words = mix(seed, frames_B.numpy()[:, None], np.arange(count))
    half = np.uint64(32)
    first = ((words >> half).astype(np.float64) + 1) / 2**32  # above 0: it goes into a logarithm
    second = (words & np.uint64(2**32 - 1)).astype(np.float64) / 2**32
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(normal.astype(np.float32).reshape(shape))
