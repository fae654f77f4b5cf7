"""Transformer blocks of the action expert and the fusion transformer.

Axes: B batch, N tokens, W width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError


class Attention(nn.Module):
    """Multi-head self-attention with a key mask."""

    def __init__(self, width: int, heads: int) -> None:
        """Create the projections.

        Raises:
            UserError: ``width`` is not a multiple of ``heads``.
        """
        super().__init__()
        if width % heads:
            raise UserError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BNW: Tensor, mask_BN: Tensor | None, first: int | None = None) -> Tensor:
        """Mix the tokens by attention.

        Args:
            x_BNW: Tokens.
            mask_BN: True for tokens that are attended to; None attends to all and is faster than
                a mask that is True everywhere.
            first: Number of first tokens whose output is computed; None computes all.

        Returns:
            (B, N, W), or (B, first, W).
        """
        batch, tokens, width = x_BNW.shape
        each = width // self.heads
        if first is None:
            first = tokens
            parts = self.qkv(x_BNW).view(batch, tokens, 3, self.heads, each)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(x_BNW[:, :first], weight[:width], bias[:width])
            q = query.view(batch, first, self.heads, each).transpose(1, 2)
            parts = F.linear(x_BNW, weight[width:], bias[width:])
            parts = parts.view(batch, tokens, 2, self.heads, each)
            k, v = parts.permute(2, 0, 3, 1, 4).unbind()
        mask = None if mask_BN is None else mask_BN[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed: Tensor = self.out(y.transpose(1, 2).reshape(batch, first, width))
        return mixed


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__(
            nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )


class TransformerBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.RMSNorm(width)
        self.mlp = FeedForward(width)

    def forward(self, x_BNW: Tensor, mask_BN: Tensor, first: int | None = None) -> Tensor:
        """Apply the block: (B, N, W) → (B, N, W), or (B, first, W).

        A network that reads one token need not compute the others in its last block.

        Args:
            x_BNW: Tokens.
            mask_BN: True for tokens that are attended to.
            first: Number of first tokens whose output is computed; None computes all.
        """
        mixed = self.attention(self.norm_attention(x_BNW), mask_BN, first)
        x_BNW = x_BNW[:, :first] + mixed
        y: Tensor = x_BNW + self.mlp(self.norm_mlp(x_BNW))
        return y


def read_first(blocks: nn.ModuleList, x_BNW: Tensor, mask_BN: Tensor, **shared: Tensor) -> Tensor:
    """Apply a stack of ``TransformerBlock`` and return the first token, (B, 1, W).

    The last block computes only this token, which saves two fifths of the time of two blocks over
    33 tokens. Blocks of another kind may take ``shared`` tensors, too.
    """
    for depth, block in enumerate(blocks, 1):
        x_BNW = block(x_BNW, mask_BN, first=1 if depth == len(blocks) else None, **shared)
    return x_BNW[:, :1]


class AdaptiveNorm(nn.Module):
    """Adaptive RMSNorm: the condition sets scale, shift and gate, as in π0.5.

    y = (1 + scale(c)) · rms(x) + shift(c). The gate scales what the next layer adds to x.
    The projection starts at zero, so that a new block is the identity (adaLN-zero,
    arXiv 2212.09748, Sec. 3.2; adaRMS in π0.5, arXiv 2504.16054).
    """

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition_width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_BNW: Tensor, condition_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the modulated tokens (B, N, W) and the gate for a condition (B, N or 1, C)."""
        scale, shift, gate = self.modulation(condition_BNC).chunk(3, dim=-1)
        return (1 + scale) * self.norm(x_BNW) + shift, gate


class AdaptiveBlock(nn.Module):
    """Transformer block whose two norms are modulated by a condition, shared or per token."""

    def __init__(self, width: int, heads: int, condition_width: int) -> None:
        super().__init__()
        self.norm_attention = AdaptiveNorm(width, condition_width)
        self.attention = Attention(width, heads)
        self.norm_mlp = AdaptiveNorm(width, condition_width)
        self.mlp = FeedForward(width)

    def forward(self, x_BNW: Tensor, mask_BN: Tensor | None, condition_BNC: Tensor) -> Tensor:
        """Apply the block: (B, N, W) → (B, N, W)."""
        y, gate = self.norm_attention(x_BNW, condition_BNC)
        x_BNW = x_BNW + gate * self.attention(y, mask_BN)
        y, gate = self.norm_mlp(x_BNW, condition_BNC)
        out: Tensor = x_BNW + gate * self.mlp(y)
        return out
