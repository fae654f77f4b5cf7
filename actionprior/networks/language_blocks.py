"""Transformer blocks of decoder-only language models, with which encoder and decoder may start.

RMSNorm, grouped-query attention with rotary positions (arXiv 2104.09864) and SwiGLU
(arXiv 2002.05202), as in Llama, Qwen2 and Qwen3. Names of weights are those of transformers.

Axes: B batch, N tokens, W width, D head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError
from actionprior.networks.sizes import require_size


@dataclass(frozen=True)
class LanguageSize:
    """Sizes of a language model's blocks, read from its configuration.

    Attributes:
        kv_heads: Number of heads of keys and values.
        head_width: Width of a head.
        mlp_width: Width of the feed-forward layer.
        rope_base: Base of the rotary positions' wavelengths.
        eps: Number added in the norms' roots.
        head_norms: True if queries and keys are normalised per head (Qwen3).
        input_bias: True if queries, keys and values have a bias (Qwen2).
        output_bias: True if the output of attention has a bias, too.
    """

    kv_heads: int
    head_width: int
    mlp_width: int
    rope_base: float = 1e4
    eps: float = 1e-6
    head_norms: bool = False
    input_bias: bool = False
    output_bias: bool = False

    def __post_init__(self) -> None:
        for name in ("kv_heads", "head_width", "mlp_width"):
            require_size(f"architecture.language.{name}", getattr(self, name), 1)
        if self.head_width % 2:
            raise UserError(
                f"architecture.language.head_width is {self.head_width}; expected an even number"
            )


class RotaryPositions(nn.Module):
    """Rotations of the positions, computed once for all blocks of a stack."""

    def __init__(self, size: LanguageSize) -> None:
        super().__init__()
        rate = torch.arange(0, size.head_width, 2, dtype=torch.float) / size.head_width
        self.rate_D: Tensor
        self.register_buffer("rate_D", size.rope_base**-rate, persistent=False)

    def forward(self, tokens: int) -> Tensor:
        """Return the cosines and signed sines of the angles of N positions, (2, N, D)."""
        angle = torch.arange(tokens, device=self.rate_D.device)[:, None] * self.rate_D
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)])


class RotaryAttention(nn.Module):
    """Grouped-query attention with rotary positions, in both directions."""

    def __init__(self, width: int, heads: int, size: LanguageSize) -> None:
        """Create the projections.

        Raises:
            UserError: ``heads`` is not a multiple of ``size.kv_heads``.
        """
        super().__init__()
        if heads % size.kv_heads:
            raise UserError(f"{heads} heads are not a multiple of {size.kv_heads} kv_heads")
        self.head_width = size.head_width
        keys = size.kv_heads * size.head_width
        self.q_proj = nn.Linear(width, heads * size.head_width, size.input_bias)
        self.k_proj = nn.Linear(width, keys, size.input_bias)
        self.v_proj = nn.Linear(width, keys, size.input_bias)
        self.o_proj = nn.Linear(heads * size.head_width, width, size.output_bias)
        self.q_norm, self.k_norm = (
            HeadNorm(size.head_width, size.eps) if size.head_norms else nn.Identity()
            for _ in range(2)
        )

    def forward(
        self,
        x_BNW: Tensor,
        mask_BN: Tensor | None,
        rotation_2ND: Tensor,
        first: int | None = None,
    ) -> Tensor:
        """Mix the tokens; see :class:`actionprior.networks.transformer.Attention`.

        ``rotation_2ND`` comes from :class:`RotaryPositions`.
        """
        q = self.q_norm(self._heads(self.q_proj(x_BNW[:, :first])))
        k = self.k_norm(self._heads(self.k_proj(x_BNW)))
        v = self._heads(self.v_proj(x_BNW))
        rotation_2ND = rotation_2ND.to(q.dtype)
        q, k = _rotated(q, rotation_2ND[:, :first]), _rotated(k, rotation_2ND)
        k, v = (self._for_all_queries(part, mask_BN) for part in (k, v))
        mask = None if mask_BN is None else mask_BN[:, None, None, :]
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1]
        )
        mixed: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, projected: Tensor) -> Tensor:
        batch, tokens, _ = projected.shape
        return projected.view(batch, tokens, -1, self.head_width).transpose(1, 2)

    def _for_all_queries(self, part_BKND: Tensor, mask_BN: Tensor | None) -> Tensor:
        """Repeat grouped heads if there is a mask, with which many GPUs have no fast kernel."""
        groups = self.q_proj.out_features // self.k_proj.out_features
        if mask_BN is None or groups == 1:
            return part_BKND
        return part_BKND.repeat_interleave(groups, dim=1)


class HeadNorm(nn.RMSNorm):
    """RMSNorm of each head, in the input's precision; mixed precisions take several kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        assert self.weight is not None
        return F.rms_norm(x, list(self.normalized_shape), self.weight.to(x.dtype), self.eps)


def _rotated(x: Tensor, rotation_2ND: Tensor) -> Tensor:
    """Rotate pairs of entries (i, i + D / 2) of each head, (B, heads, N, D)."""
    cos_ND, sin_ND = rotation_2ND
    return torch.addcmul(x * cos_ND, x.roll(x.shape[-1] // 2, dims=-1), sin_ND)


class SwiGLU(nn.Module):
    """Feed-forward layer with a gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BNW: Tensor) -> Tensor:
        """Apply the layer, (B, N, W) → (B, N, W)."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_BNW)) * self.up_proj(x_BNW))
        return out


class LanguageBlock(nn.Module):
    """Block of the encoder; see :class:`actionprior.networks.transformer.TransformerBlock`."""

    def __init__(self, width: int, heads: int, size: LanguageSize) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width, size.eps)
        self.self_attn = RotaryAttention(width, heads, size)
        self.post_attention_layernorm = nn.RMSNorm(width, size.eps)
        self.mlp = SwiGLU(width, size.mlp_width)

    def forward(
        self,
        x_BNW: Tensor,
        mask_BN: Tensor | None,
        rotation_2ND: Tensor,
        first: int | None = None,
    ) -> Tensor:
        """Apply the block: (B, N, W) → (B, N, W), or (B, first, W)."""
        mixed = self.self_attn(self.input_layernorm(x_BNW), mask_BN, rotation_2ND, first)
        x_BNW = x_BNW[:, :first] + mixed
        y: Tensor = x_BNW + self.mlp(self.post_attention_layernorm(x_BNW))
        return y


class ModulatedNorm(nn.Module):
    """Pretrained RMSNorm whose scale and shift a condition changes, and a gate of the branch.

    y = (1 + scale(c)) · norm(x) + shift(c). The branch is multiplied by 1 + gate(c). The modulation
    starts at zero, so that a new block is the language model's.
    """

    def __init__(self, width: int, condition_width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps)
        self.modulation = nn.Linear(condition_width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_BNW: Tensor, modulation_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the modulated tokens (B, N, W) and the branch's factor (B, N or 1, W).

        ``modulation_BNC`` is the output of ``self.modulation``, (B, N or 1, 3 · W).
        """
        scale, shift, gate = modulation_BNC.chunk(3, dim=-1)
        return (1 + scale) * self.norm(x_BNW) + shift, 1 + gate


def rotations(positions: RotaryPositions | None, tokens: int) -> dict[str, Tensor]:
    """Return what a stack passes to each of its blocks; small transformers' blocks get nothing."""
    return {} if positions is None else {"rotation_2ND": positions(tokens)}


class AdaptiveLanguageBlock(nn.Module):
    """Block of the decoder, whose norms are modulated by a condition, shared or per token."""

    def __init__(self, width: int, heads: int, condition_width: int, size: LanguageSize) -> None:
        super().__init__()
        self.input_layernorm = ModulatedNorm(width, condition_width, size.eps)
        self.self_attn = RotaryAttention(width, heads, size)
        self.post_attention_layernorm = ModulatedNorm(width, condition_width, size.eps)
        self.mlp = SwiGLU(width, size.mlp_width)

    def forward(
        self,
        x_BNW: Tensor,
        mask_BN: Tensor | None,
        condition_BNC: Tensor,
        rotation_2ND: Tensor,
    ) -> Tensor:
        """Apply the block: (B, N, W) → (B, N, W)."""
        return self.modulated(x_BNW, mask_BN, self.modulations(condition_BNC), rotation_2ND)

    def modulations(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the modulations (..., 3 · W) of both norms for conditions (..., C)."""
        norms = self.input_layernorm, self.post_attention_layernorm
        attention, mlp = (norm.modulation(condition) for norm in norms)
        return attention, mlp

    def modulated(
        self,
        x_BNW: Tensor,
        mask_BN: Tensor | None,
        modulations: tuple[Tensor, Tensor],
        rotation_2ND: Tensor,
    ) -> Tensor:
        """Apply the block with modulations that are known already."""
        y, factor = self.input_layernorm(x_BNW, modulations[0])
        x_BNW = x_BNW + factor * self.self_attn(y, mask_BN, rotation_2ND)
        y, factor = self.post_attention_layernorm(x_BNW, modulations[1])
        out: Tensor = x_BNW + factor * self.mlp(y)
        return out
