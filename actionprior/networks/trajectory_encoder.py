"""The trajectory encoder: one latent action embedding for a chunk of states and actions.

Source: arXiv 2606.26095, Sec. III-B. Axes: B batch, H steps, A action slots, S state slots,
P soft dataset tokens, W width, Z latent width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.networks.language_blocks import (
    LanguageBlock,
    LanguageSize,
    RotaryPositions,
    rotations,
)
from actionprior.networks.transformer import TransformerBlock, read_first

Inputs = Literal["action_state", "action"]


class TrajectoryEncoder(nn.Module):
    """z = ℓ2norm(Enc([cls, p_k, τ]) at cls), with τ = [s_t, a_t, s_{t+1}, a_{t+1}, …].

    ``inputs="action"`` is the action-only prior: τ = [a_t, a_{t+1}, …].
    """

    def __init__(
        self,
        width: int,
        latent_width: int,
        depth: int,
        heads: int,
        max_steps: int,
        inputs: Inputs = "action_state",
        language: LanguageSize | None = None,
    ) -> None:
        """Create an encoder for windows of up to ``max_steps`` steps.

        With ``language``, its blocks are a language model's, which attend in both directions.
        """
        super().__init__()
        self.inputs = inputs
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.embed_action = nn.Linear(ACTION_WIDTH, width)
        self.embed_state = nn.Linear(STATE_WIDTH, width) if inputs == "action_state" else None
        self.position_HW = nn.Parameter(torch.randn(max_steps, width) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads)
            if language is None
            else LanguageBlock(width, heads, language)
            for _ in range(depth)
        )
        self.rotary = None if language is None else RotaryPositions(language)
        self.norm = nn.RMSNorm(width)
        self.to_latent = nn.Linear(width, latent_width)

    def forward(
        self, action_BHA: Tensor, state_BHS: Tensor, step_mask_BH: Tensor, dataset_BPW: Tensor
    ) -> Tensor:
        """Encode normalised windows as unit vectors (B, Z). Masked steps are not attended to.

        Raises:
            ValueError: The window is longer than ``max_steps``.
        """
        batch, steps, _ = action_BHA.shape
        if steps > len(self.position_HW):
            raise ValueError(f"window of {steps} steps, expected at most {len(self.position_HW)}")
        tokens = [self.embed_action(action_BHA) + self.position_HW[:steps]]
        if self.embed_state is not None:
            tokens.insert(0, self.embed_state(state_BHS) + self.position_HW[:steps])
        kinds = len(tokens)
        tau_BNW = torch.stack(tokens, dim=2).flatten(1, 2)  # interleaved s, a, s, a, …
        cls_B1W = self.cls.expand(batch, 1, -1)
        x_BNW = torch.cat([cls_B1W, dataset_BPW, tau_BNW], dim=1)
        front = step_mask_BH.new_ones(batch, 1 + dataset_BPW.shape[1])
        mask_BN = torch.cat([front, step_mask_BH.repeat_interleave(kinds, dim=1)], dim=1)
        x_BNW = read_first(self.blocks, x_BNW, mask_BN, **rotations(self.rotary, x_BNW.shape[1]))
        return F.normalize(self.to_latent(self.norm(x_BNW[:, 0])), dim=-1)
