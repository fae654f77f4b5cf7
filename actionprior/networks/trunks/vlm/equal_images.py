"""Image towers of transformers for batches of images of one size.

Each class computes what its base class computes for images of one size, without a loop over the
images and without waiting for a GPU. It is assigned to modules that exist already.

Axes: I images, N patches of an image, W width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLVisionAttention,
    Qwen3VLVisionModel,
    apply_rotary_pos_emb_vision,
)
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from actionprior.networks.device import to_device


class EqualQwenVision(Qwen3VLVisionModel):  # type: ignore[misc]  # untyped
    """Qwen3-VL's image tower; the positions of one image serve all."""

    def fast_pos_embed_interpolate(self, grid_thw: Tensor) -> Tensor:
        """Return position embeddings (I · N, W)."""
        _, rows, columns = grid_thw[0].tolist()  # a tensor on the CPU
        merge, device = self.config.spatial_merge_size, self.pos_embed.weight.device
        corners = _corners(rows, columns, self.num_grid_per_side, merge)
        place_4N, weight_4N = (to_device(part, device) for part in corners)
        one_4NW: Tensor = self.pos_embed(place_4N) * weight_4N[..., None].to(
            self.pos_embed.weight.dtype
        )
        return one_4NW.sum(dim=0).repeat(len(grid_thw), 1)

    def rot_pos_emb(self, grid_thw: Tensor) -> Tensor:
        """Return rotary angles (I · N, head width / 2)."""
        one: Tensor = super().rot_pos_emb(grid_thw[:1])
        return one.repeat(len(grid_thw), 1)


def _corners(rows: int, columns: int, side: int, merge: int) -> tuple[Tensor, Tensor]:
    """Return the four embeddings around each patch and their weights, both (4, N).

    Embeddings stand in a square of ``side`` by ``side``. Patches are ordered by squares of
    ``merge`` by ``merge``, which become one token.
    """
    line_Y, line_X = (torch.linspace(0, side - 1, count) for count in (rows, columns))
    ends = [(line.long(), (line.long() + 1).clip(max=side - 1)) for line in (line_Y, line_X)]
    part_Y, part_X = (line - line.floor() for line in (line_Y, line_X))
    places, weights = [], []
    for low_row in (True, False):
        for low_column in (True, False):
            row_Y, column_X = ends[0][not low_row], ends[1][not low_column]
            places.append(row_Y[:, None] * side + column_X)
            share_Y = 1 - part_Y if low_row else part_Y
            weights.append(share_Y[:, None] * (1 - part_X if low_column else part_X))
    place_4N, weight_4N = (
        torch.stack(parts)
        .view(4, rows // merge, merge, columns // merge, merge)
        .transpose(2, 3)
        .flatten(1)
        for parts in (places, weights)
    )
    return place_4N, weight_4N


class EqualQwenAttention(Qwen3VLVisionAttention):  # type: ignore[misc]  # untyped
    """Qwen3-VL's attention inside images, as one product over the batch of images."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        rotary_pos_emb: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: Any,  # noqa: ANN401  of other kernels
    ) -> Tensor:
        """Mix the patches of each image, (I · N, W) → (I · N, W)."""
        assert position_embeddings is not None
        images, total = len(cu_seqlens) - 1, len(hidden_states)
        parts = self.qkv(hidden_states).view(total, 3, self.num_heads, -1).unbind(1)
        q, k = apply_rotary_pos_emb_vision(parts[0], parts[1], *position_embeddings)
        q, k, v = (
            part.view(images, total // images, self.num_heads, -1).transpose(1, 2)
            for part in (q, k, parts[2])
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scaling)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(total, -1))
        return out


def add_everywhere(hidden: Tensor, _: Tensor, further: Tensor) -> Tensor:
    """Add an image's further features to hidden states; those of other tokens are zero."""
    return hidden + further


class EqualSmolVLMVision(SmolVLMVisionTransformer):  # type: ignore[misc]  # untyped
    """SmolVLM's image tower for images that fill their square."""

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:  # noqa: ANN401  of other kernels
        """Compute patches (I, N, W)."""
        parts = self.embeddings
        x_INW = parts.patch_embedding(pixel_values)
        rows, columns = x_INW.shape[-2:]
        side, device = parts.num_patches_per_side, x_INW.device
        row = torch.arange(rows, device=device) * side // rows
        column = torch.arange(columns, device=device) * side // columns
        place_N = (row[:, None] * side + column).flatten()
        x_INW = x_INW.flatten(2).mT + parts.position_embedding(place_N)
        x_INW = self.encoder(inputs_embeds=x_INW, attention_mask=None).last_hidden_state
        return BaseModelOutput(last_hidden_state=self.post_layernorm(x_INW))
