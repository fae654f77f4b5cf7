"""Robot, state, history and query as tokens in a vision-language model's own sequence.

Source: arXiv 2606.26095, Sec. III-C. Axes: B batch, N trunk tokens, P dataset tokens, Q queries,
L tokens of the sequence, S state slots, Z latent width, W width, A axes of positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.embodiment import STATE_WIDTH
from actionprior.networks.trunks.base import TrunkTokens
from actionprior.networks.trunks.vlm.families import extended

Read = Callable[[Tensor, Tensor, Tensor], Tensor]


class SequenceFusion(nn.Module):
    """z′ = ℓ2norm(VLM([p_k, images, text, state, (z_hist), query]) at query).

    The sequence may have several queries, with and without z_hist. No query sees another, and
    nothing before a query sees it. So one pass of the model gives what a pass for each query gives.
    """

    def __init__(
        self,
        read: Read,
        width: int,
        scale: float,
        two_way: bool,
        prior_width: int,
        latent_width: int,
        state_dropout: float = 0.0,
    ) -> None:
        """Create the projections.

        Args:
            read: Function of a sequence (B, L, ·), which tokens attend to which (B, L, L), and
                positions (B, L, A) that returns the last hidden states (B, L, W). Its weights
                are not this module's.
            width: Width W of the model.
            scale: Root mean square of the model's token embeddings, which new tokens start with.
            two_way: True if all tokens before z_hist attend to each other in both directions.
            prior_width: Width of the prior's soft tokens.
            latent_width: Number Z of entries of the latent.
            state_dropout: Share of observations whose state is hidden while training.
        """
        super().__init__()
        self.hide_state = nn.Dropout(state_dropout)
        self.from_dataset = _projection(prior_width, width, scale)
        self.from_state = nn.Sequential(
            nn.Linear(STATE_WIDTH, width), nn.GELU(), _projection(width, width, scale)
        )
        self.from_history = _projection(latent_width, width, scale)
        self.query = nn.Parameter(torch.randn(width) * scale)
        self.to_latent = nn.Linear(width, latent_width)
        self.latent_gain = latent_width**0.5
        self._read, self._two_way = read, two_way

    def forward(
        self,
        tokens: TrunkTokens,
        dataset_BPW: Tensor,
        state_BS: Tensor,
        history_BZ: Tensor,
        summary_BF: Tensor | None,
        history_mask_B: Tensor,
    ) -> Tensor:
        """Fuse the tokens to unit vectors z′ (B, Z); see ``Fusion.forward`` for the arguments."""
        batch = len(state_BS)
        passes = len(history_mask_B) // max(1, batch)
        width, queries = tokens.tokens_BNW.shape[-1], self.query.expand(batch, passes, -1)
        own = (
            self.from_dataset(dataset_BPW),
            self.from_state(state_BS)[:, None],
            self.from_history(history_BZ * self.latent_gain)[:, None],
            queries,
        )
        first, state, history, query = (extended(part, width) for part in own)
        x_BLW = torch.cat([first, tokens.tokens_BNW, state, history, query], dim=1)
        shown_B1 = self.hide_state(torch.ones_like(state_BS[:, :1])).bool()
        always = shown_B1.new_ones(batch, dataset_BPW.shape[1])
        known_BN = torch.cat([always, tokens.mask_BN, shown_B1], dim=1)
        mask_BLL = attention_mask(known_BN, history_mask_B.view(passes, batch).T, self._two_way)
        place_BLA = _places(tokens, dataset_BPW.shape[1], passes)
        hidden_BLW = self._read(x_BLW, mask_BLL, place_BLA)
        z_BQZ = F.normalize(self.to_latent(hidden_BLW[:, -passes:]), dim=-1)
        return z_BQZ.transpose(0, 1).flatten(0, 1)


def attention_mask(known_BN: Tensor, history_BQ: Tensor, two_way: bool) -> Tensor:
    """Return which of N tokens, z_hist and Q queries attend to which, (B, N + 1 + Q, same).

    Args:
        known_BN: False for tokens that nothing attends to.
        history_BQ: True for queries that attend to z_hist.
        two_way: True if the N tokens attend to each other in both directions.
    """
    count, queries = known_BN.shape[1], history_BQ.shape[1]
    total, device = count + 1 + queries, known_BN.device
    place_L = torch.arange(total, device=device)
    allowed_LL = place_L[:, None] >= place_L
    if two_way:
        allowed_LL = allowed_LL | ((place_L[:, None] < count) & (place_L < count))
    # Queries attend neither to each other nor, so far, to z_hist.
    allowed_LL = allowed_LL & (place_L < count)
    key_BL = F.pad(known_BN, (0, 1 + queries), value=False)
    seen_BL1 = F.pad(history_BQ, (count + 1, 0), value=False)[..., None]
    own_LL = place_L[:, None] == place_L  # a row without any key would give NaN
    return (allowed_LL & key_BL[:, None]) | (seen_BL1 & (place_L == count)) | own_LL


def _places(tokens: TrunkTokens, before: int, passes: int) -> Tensor:
    """Return positions (B, L, A): those of the trunk stand between new ones."""
    place_BNA = tokens.place_BNA
    assert place_BNA is not None, "a trunk that brings this fusion places its tokens"
    batch, _, axes = place_BNA.shape
    first = torch.arange(before, device=place_BNA.device)[:, None].expand(batch, -1, axes)
    present = torch.where(tokens.mask_BN[..., None], place_BNA, -1)
    next_B11 = present.amax(dim=(1, 2), keepdim=True) + 1 + before
    step = torch.arange(3, device=place_BNA.device)[:, None]  # state, z_hist, query
    last = (next_B11 + step).expand(batch, 3, axes)
    return torch.cat([first, place_BNA + before, last, last[:, -1:].expand(-1, passes - 1, -1)], 1)


def _projection(inputs: int, outputs: int, scale: float) -> nn.Linear:
    """Create a layer whose outputs have the scale of token embeddings, for inputs of scale 1."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=scale / inputs**0.5)
    nn.init.normal_(layer.bias, std=scale)
    return layer
