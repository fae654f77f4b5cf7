"""The flow-matching action decoder: Stage 1's decoder and Stage 2's action head.

Source: arXiv 2606.26095, Sec. III-B. Axes: B batch, H steps, T flow times (1 or H), A action
slots, S state slots, W width, Z latent width.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.flow_matching import time_features
from actionprior.networks.language_blocks import (
    AdaptiveLanguageBlock,
    LanguageSize,
    RotaryPositions,
    rotations,
)
from actionprior.networks.transformer import AdaptiveBlock, AdaptiveNorm


class ActionDecoder(nn.Module):
    """Velocity D(x_r, r, z) of a noisy chunk, conditioned only by modulated normalisation.

    With ``condition_on_state`` the condition is (z, s_t) rather than the paper's z.
    The last layer starts at zero, so that a fresh decoder predicts no velocity.
    """

    def __init__(
        self,
        width: int,
        latent_width: int,
        depth: int,
        heads: int,
        chunk_length: int,
        condition_on_state: bool = False,
        language: LanguageSize | None = None,
    ) -> None:
        """Create a decoder for chunks of ``chunk_length`` steps.

        With ``language``, its blocks are a language model's with modulated norms.
        """
        super().__init__()
        self.embed_action = nn.Linear(ACTION_WIDTH, width)
        self.position_HW = nn.Parameter(torch.randn(chunk_length, width) * 0.02)
        self.embed_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_latent = nn.Linear(latent_width, width)
        self.embed_state = nn.Linear(STATE_WIDTH, width) if condition_on_state else None
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(
            AdaptiveBlock(width, heads, width)
            if language is None
            else AdaptiveLanguageBlock(width, heads, width, language)
            for _ in range(depth)
        )
        self.rotary = None if language is None else RotaryPositions(language)
        self.norm = AdaptiveNorm(width, width)
        self.to_velocity = nn.Linear(width, ACTION_WIDTH)
        nn.init.zeros_(self.to_velocity.weight)
        nn.init.zeros_(self.to_velocity.bias)
        # A unit vector has entries of size 1/sqrt(Z). This gain brings them to the scale of the
        # other inputs.
        self.latent_gain = sqrt(latent_width)

    def forward(
        self,
        x_BHA: Tensor,
        r_BT: Tensor,
        z_BZ: Tensor,
        state_BS: Tensor,
        step_mask_BH: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity (B, H, A) of noisy normalised chunks.

        Args:
            x_BHA: Noisy normalised chunks.
            r_BT: Flow times, one per chunk, (B, 1), or one per step, (B, H). Steps that are known
                already have a time of their own (training-time real-time chunking,
                arXiv 2512.05964, Sec. 3).
            z_BZ: Latents.
            state_BS: Normalised current states.
            step_mask_BH: False for steps beyond the episode's end; None if there are no such
                steps, as when a chunk is sampled.
        """
        condition_BTW = self.condition(r_BT, z_BZ, state_BS)
        h_BHW = self.embed_action(x_BHA) + self.position_HW
        shared = rotations(self.rotary, h_BHW.shape[1])
        for block in self.blocks:
            h_BHW = block(h_BHW, step_mask_BH, condition_BTW, **shared)
        h_BHW, _ = self.norm(h_BHW, condition_BTW)
        velocity_BHA: Tensor = self.to_velocity(h_BHW)
        return velocity_BHA

    def condition(self, r: Tensor, z_BZ: Tensor, state_BS: Tensor) -> Tensor:
        """Compute the condition (..., B, T, W) for flow times (..., B, T)."""
        position_HW = self.position_HW
        condition = self.embed_time(time_features(r, position_HW.shape[1]).to(position_HW.dtype))
        condition = condition + self.embed_latent(z_BZ * self.latent_gain)[:, None]
        if self.embed_state is not None:
            condition = condition + self.embed_state(state_BS)[:, None]
        mixed: Tensor = self.mix(condition)
        return mixed
