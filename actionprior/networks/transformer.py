"""Transformer blocks of the action expert and of the fusion.

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
        """(B, N, W) → (B, N, W); tokens attend only where ``mask_BN`` is True, or everywhere.

        A mask that is True throughout changes nothing but the time it takes.

        With ``first``, what the first tokens gather from all, (B, first, W), and nothing else
        is computed.
        """
        batch, tokens, width = x_BNW.shape
        shape = (batch, -1, self.heads, width // self.heads)
        if first is None:
            first = tokens
            parts = self.qkv(x_BNW).chunk(3, dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(x_BNW[:, :first], weight[:width], bias[:width])
            parts = (query, *F.linear(x_BNW, weight[width:], bias[width:]).chunk(2, dim=-1))
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in parts)
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


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.RMSNorm(width)
        self.mlp = FeedForward(width)

    def forward(self, x_BNW: Tensor, mask_BN: Tensor, first: int | None = None) -> Tensor:
        """(B, N, W) → (B, N, W), or (B, first, W): the first tokens alone, at their cost.

        A network that reads one token need not compute the others in its last block.
        """
        mixed = self.attention(self.norm_attention(x_BNW), mask_BN, first)
        x_BNW = x_BNW[:, :first] + mixed
        y: Tensor = x_BNW + self.mlp(self.norm_mlp(x_BNW))
        return y


def read_first(blocks: nn.ModuleList, x_BNW: Tensor, mask_BN: Tensor) -> Tensor:
    """What a stack of ``Block`` makes of the first token, (B, 1, W).

    The last block computes no other token: of two blocks over 33 tokens that saves two fifths.
    """
    for depth, block in enumerate(blocks, 1):
        x_BNW = block(x_BNW, mask_BN, first=1 if depth == len(blocks) else None)
    return x_BNW[:, :1]


class AdaptiveNorm(nn.Module):
    """Adaptive RMSNorm: the condition sets scale, shift and gate, as in π0.5.

    y = (1 + scale(c)) · rms(x) + shift(c); the gate scales what the layer behind adds to x.
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
        """(B, N, W), (B, N or 1, C) → the modulated tokens (B, N, W) and the gate."""
        scale, shift, gate = self.modulation(condition_BNC).chunk(3, dim=-1)
        return (1 + scale) * self.norm(x_BNW) + shift, gate


class AdaptiveBlock(nn.Module):
    """Transformer block whose two norms are modulated by a condition, one for all or a token."""

    def __init__(self, width: int, heads: int, condition_width: int) -> None:
        super().__init__()
        self.norm_attention = AdaptiveNorm(width, condition_width)
        self.attention = Attention(width, heads)
        self.norm_mlp = AdaptiveNorm(width, condition_width)
        self.mlp = FeedForward(width)

    def forward(self, x_BNW: Tensor, mask_BN: Tensor | None, condition_BNC: Tensor) -> Tensor:
        """(B, N, W) → (B, N, W)."""
        y, gate = self.norm_attention(x_BNW, condition_BNC)
        x_BNW = x_BNW + gate * self.attention(y, mask_BN)
        y, gate = self.norm_mlp(x_BNW, condition_BNC)
        out: Tensor = x_BNW + gate * self.mlp(y)
        return out
