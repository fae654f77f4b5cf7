"""The fusion transformer: observation and instruction become one latent action embedding.

Source: arXiv 2606.26095, Sec. III-C. Axes: B batch, N trunk tokens, P dataset tokens,
H history steps, A action slots, S state slots, W width, Z latent width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.networks.transformer import FeedForward, TransformerBlock, read_first
from actionprior.networks.trunks.base import TrunkTokens


class FusionInputs(NamedTuple):
    """What z′ is read from: arguments of :class:`Fusion` and of the fusions that trunks bring."""

    tokens: TrunkTokens
    dataset_BPW: Tensor  # soft tokens of the robot, of the prior's width
    state_BS: Tensor  # normalised current state
    history_BZ: Tensor  # history token z_hist
    summary_BF: Tensor | None  # summaries of all cameras; None: there are none
    history_mask_B: Tensor  # bool, True for rows whose z_hist is attended to


class Fusion(nn.Module):
    """z′ = ℓ2norm(VLM([p_k, images, text, state, (z_hist), query]) at query).

    The order of the tokens has no meaning, because only their kinds are encoded here.
    """

    def __init__(
        self,
        trunk_width: int,
        prior_width: int,
        latent_width: int,
        width: int,
        depth: int,
        heads: int,
        state_dropout: float = 0.0,
        summary_width: int = 0,
    ) -> None:
        """Create the transformer.

        Args:
            trunk_width: Width of the trunk's tokens.
            prior_width: Width of the prior's soft tokens.
            latent_width: Number of entries of the latent.
            width: Token width of the transformer.
            depth: Number of transformer blocks.
            heads: Number of attention heads.
            state_dropout: Share of observations whose state is hidden while training.
            summary_width: Number of entries of the summaries of all cameras; 0: there are none.
        """
        super().__init__()
        self.hide_state = nn.Dropout(state_dropout)
        self.from_trunk = nn.Linear(trunk_width, width)
        self.from_dataset = nn.Linear(prior_width, width)
        self.from_state = nn.Sequential(nn.Linear(STATE_WIDTH, width), FeedForward(width))
        self.from_history = nn.Linear(latent_width, width)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        # What stands at a fixed place is learnt sooner than what attention has to find.
        self.from_summary = nn.Linear(summary_width, width) if summary_width else None
        # One vector per kind of token: dataset, state, history, trunk.
        self.kind_KW = nn.Parameter(torch.randn(4, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        self.to_latent = nn.Linear(width, latent_width)
        self.latent_gain = latent_width**0.5

    def forward(
        self,
        tokens: TrunkTokens,
        dataset_BPW: Tensor,
        state_BS: Tensor,
        history_BZ: Tensor,
        summary_BF: Tensor | None,
        history_mask_B: Tensor,
    ) -> Tensor:
        """Fuse the tokens to unit vectors z′ (B, Z).

        Several passes over the same rows share the projections of the tokens.

        Args:
            tokens: Image and text tokens.
            dataset_BPW: Soft tokens of the robot, of the prior's width.
            state_BS: Normalised current state.
            history_BZ: History token z_hist.
            summary_BF: Summaries of all cameras, added to the query; None: there are none.
            history_mask_B: True for rows whose z_hist is attended to. With a multiple of B
                entries, all rows are fused once with each of the masks, in sequence.
        """
        batch = len(tokens.tokens_BNW)
        passes = len(history_mask_B) // max(1, batch)
        dataset, state, history, trunk = self.kind_KW
        query_BW = self.query.expand(batch, -1)
        if self.from_summary is not None and summary_BF is not None:
            query_BW = query_BW + self.from_summary(summary_BF)
        parts = [
            query_BW[:, None],
            self.from_dataset(dataset_BPW) + dataset,
            self.from_state(state_BS)[:, None] + state,
            self.from_history(history_BZ * self.latent_gain)[:, None] + history,
            self.from_trunk(tokens.tokens_BNW) + trunk,
        ]
        always = history_mask_B.new_ones(passes * batch, 1 + dataset_BPW.shape[1])
        shown_B1 = self.hide_state(torch.ones_like(state_BS[:, :1])).bool().repeat(passes, 1)
        known = tokens.mask_BN.repeat(passes, 1)
        mask_BN = torch.cat([always, shown_B1, history_mask_B[:, None], known], dim=1)
        x_BNW = torch.cat(parts, dim=1).repeat(passes, 1, 1)
        x_BNW = read_first(self.blocks, x_BNW, mask_BN)
        return F.normalize(self.to_latent(self.norm(x_BNW[:, 0])), dim=-1)


class HistoryMLP(nn.Module):
    """The paper's control for the history token: a plain MLP over the past (s, a) pairs."""

    def __init__(self, steps: int, latent_width: int, width: int) -> None:
        super().__init__()
        entries = steps * (ACTION_WIDTH + STATE_WIDTH + 1)
        self.net = nn.Sequential(
            nn.Linear(entries, width), nn.GELU(), nn.Linear(width, latent_width)
        )

    def forward(self, action_BHA: Tensor, state_BHS: Tensor, step_mask_BH: Tensor) -> Tensor:
        """Encode a normalised past window as unit vectors (B, Z); padded steps are zeroed."""
        mask_BH1 = step_mask_BH[:, :, None]
        parts = [
            torch.where(mask_BH1, action_BHA, 0.0),
            torch.where(mask_BH1, state_BHS, 0.0),
            mask_BH1.to(action_BHA.dtype),
        ]
        return F.normalize(self.net(torch.cat(parts, dim=-1).flatten(1)), dim=-1)
