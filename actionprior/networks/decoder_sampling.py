"""The action decoder while a chunk is sampled: what its calls share is computed once.

The flow times of all calls are known before the first one. The modulation of the norms depends on
flow time, latent and state, and not on the noisy chunk. The remaining arithmetic is written as
functions of weights, because at batch size 1 the calls of modules cost as much as the products.

Axes: K calls of the decoder, G calls that are prepared together, B batch, H steps, T flow times
(1 or H), A action slots, S state slots, W width, Z latent width.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from math import sqrt
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.networks.action_decoder import ActionDecoder
from actionprior.networks.language_blocks import AdaptiveLanguageBlock, RotaryPositions
from actionprior.networks.transformer import AdaptiveBlock

_CONDITIONS_AT_ONCE = 256  # rows; bounds the memory of large batches and large decoders


class _Modulation(NamedTuple):
    """Modulation of one norm in one call."""

    scale: Tensor  # (B, T, W), (1 + scale(c)) · √W
    shift: Tensor  # (B, T, W)
    gate: Tensor  # (B, T, W)


class _Linear(NamedTuple):
    """Weights of a linear layer, in the order of ``torch.nn.functional.linear``."""

    weight: Tensor
    bias: Tensor


class _Block(NamedTuple):
    """Weights of a block besides its modulation."""

    qkv: _Linear
    out: _Linear
    up: _Linear
    down: _Linear


class _Weights(NamedTuple):
    """Weights of a decoder besides its condition and its modulation."""

    embed_action: _Linear
    position_HW: Tensor
    blocks: tuple[_Block, ...]
    to_velocity: _Linear
    floor: Tensor  # (), W · eps of the norms
    heads: int


def velocity_fields(
    decoder: ActionDecoder, r_KBT: Tensor, z_BZ: Tensor, state_BS: Tensor
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield for each call the velocity as a function of only the noisy chunks (B, H, A).

    Up to rounding, the result is that of ``decoder`` without a mask.

    Args:
        decoder: Decoder, which gets no gradient.
        r_KBT: Flow times of the calls, each as ``decoder`` takes them.
        z_BZ: Latents.
        state_BS: Normalised current states.
    """
    at_once = r_KBT[0].numel() <= _CONDITIONS_AT_ONCE
    if _needs_forward(decoder) or (decoder.rotary is not None and not at_once):
        for r_BT in r_KBT:
            yield partial(_call, decoder, r_BT, z_BZ, state_BS)
        return
    if decoder.rotary is not None:
        yield from _language_velocities(decoder, decoder.rotary, r_KBT, z_BZ, state_BS)
        return
    velocity = _velocity if decoder._compiled_call_impl is None else _compiled_velocity()
    weights = _weights(decoder)
    blocks = _blocks(decoder)
    norms = [n for block in blocks for n in (block.norm_attention, block.norm_mlp)]
    norms.append(decoder.norm)
    for r_GBT in torch.split(r_KBT, max(1, _CONDITIONS_AT_ONCE // r_KBT[0].numel())):
        condition_GBTW = decoder.condition(r_GBT, z_BZ, state_BS)
        calls = [_modulations(norm.modulation(condition_GBTW)) for norm in norms]
        for modulations in zip(*calls, strict=True):
            yield partial(velocity, modulations=modulations, weights=weights)


def _call(
    decoder: ActionDecoder, r_BT: Tensor, z_BZ: Tensor, state_BS: Tensor, x_BHA: Tensor
) -> Tensor:
    velocity_BHA: Tensor = decoder(x_BHA, r_BT, z_BZ, state_BS)
    return velocity_BHA


def _needs_forward(decoder: ActionDecoder) -> bool:
    """Check if ``forward`` does more than compute, such as to gather shards of the weights."""
    if type(decoder) is not ActionDecoder:  # another class may compute something else
        return True
    blocks = _blocks(decoder)
    return (
        torch.is_grad_enabled()
        or any(type(block) not in (AdaptiveBlock, AdaptiveLanguageBlock) for block in blocks)
        or any(part._forward_pre_hooks or part._forward_hooks for part in (decoder, *blocks))
        or any(block._compiled_call_impl is not None for block in blocks)
        or (decoder.rotary is not None and decoder._compiled_call_impl is not None)
    )


def _language_velocities(
    decoder: ActionDecoder, rotary: RotaryPositions, r_KBT: Tensor, z_BZ: Tensor, state_BS: Tensor
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield the velocities of a decoder of a language model's blocks."""
    blocks = cast(list[AdaptiveLanguageBlock], list(decoder.blocks))
    rotation_2ND = rotary(len(decoder.position_HW))
    for r_GBT in torch.split(r_KBT, _CONDITIONS_AT_ONCE // r_KBT[0].numel()):
        condition_GBTW = decoder.condition(r_GBT, z_BZ, state_BS)
        modulations = [block.modulations(condition_GBTW) for block in blocks]
        for call, condition_BTW in enumerate(condition_GBTW):
            own = [(attention[call], mlp[call]) for attention, mlp in modulations]
            yield partial(
                _language_velocity,
                decoder=decoder,
                modulations=own,
                condition_BTW=condition_BTW,
                rotation_2ND=rotation_2ND,
            )


def _language_velocity(
    x_BHA: Tensor,
    decoder: ActionDecoder,
    modulations: list[tuple[Tensor, Tensor]],
    condition_BTW: Tensor,
    rotation_2ND: Tensor,
) -> Tensor:
    h_BHW = decoder.embed_action(x_BHA) + decoder.position_HW
    blocks = cast(list[AdaptiveLanguageBlock], list(decoder.blocks))
    for block, modulation in zip(blocks, modulations, strict=True):
        h_BHW = block.modulated(h_BHW, None, modulation, rotation_2ND)
    h_BHW, _ = decoder.norm(h_BHW, condition_BTW)
    velocity_BHA: Tensor = decoder.to_velocity(h_BHW)
    return velocity_BHA


def _blocks(decoder: ActionDecoder) -> list[AdaptiveBlock]:
    return cast(list[AdaptiveBlock], list(decoder.blocks))


def _weights(decoder: ActionDecoder) -> _Weights:
    blocks = []
    for block in _blocks(decoder):
        attention, up, down = block.attention, block.mlp[0], block.mlp[2]
        blocks.append(_Block(*map(_linear, (attention.qkv, attention.out, up, down))))
    position_HW = decoder.position_HW
    floor = position_HW.shape[1] * torch.finfo(position_HW.dtype).eps  # nn.RMSNorm's default eps
    return _Weights(
        _linear(decoder.embed_action),
        position_HW,
        tuple(blocks),
        _linear(decoder.to_velocity),
        position_HW.new_full((), floor),
        _blocks(decoder)[0].attention.heads,
    )


def _linear(layer: nn.Module) -> _Linear:
    return _Linear(cast(Tensor, layer.weight), cast(Tensor, layer.bias))


def _modulations(projected_KBTW: Tensor) -> list[_Modulation]:
    """Split the projection (K, B, T, 3 W) of ``AdaptiveNorm`` into the modulations of K calls."""
    scale, shift, gate = projected_KBTW.chunk(3, dim=-1)
    scale = (1 + scale) * sqrt(scale.shape[-1])
    return [
        _Modulation(*m) for m in zip(scale.unbind(), shift.unbind(), gate.unbind(), strict=True)
    ]


def _velocity(x_BHA: Tensor, modulations: tuple[_Modulation, ...], weights: _Weights) -> Tensor:
    h_BHW = F.linear(x_BHA, *weights.embed_action) + weights.position_HW
    batch, steps, width = h_BHW.shape
    qkv_shape = (batch, steps, 3, weights.heads, width // weights.heads)
    for number, block in enumerate(weights.blocks):
        attention, mlp = modulations[2 * number : 2 * number + 2]
        qkv = F.linear(_norm(h_BHW, attention, weights.floor), *block.qkv)
        q, k, v = qkv.view(qkv_shape).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v)
        y = F.linear(y.transpose(1, 2).reshape(batch, steps, width), *block.out)
        h_BHW = torch.addcmul(h_BHW, attention.gate, y)
        y = F.gelu(F.linear(_norm(h_BHW, mlp, weights.floor), *block.up))
        h_BHW = torch.addcmul(h_BHW, mlp.gate, F.linear(y, *block.down))
    return F.linear(_norm(h_BHW, modulations[-1], weights.floor), *weights.to_velocity)


def _norm(x_BHW: Tensor, modulation: _Modulation, floor: Tensor) -> Tensor:
    """Compute the modulated RMSNorm; rms(x) = √W · x / √(‖x‖² + W · eps)."""
    norm_BH1 = torch.linalg.vector_norm(x_BHW, dim=-1, keepdim=True)
    unit_BHW = x_BHW * torch.addcmul(floor, norm_BH1, norm_BH1).rsqrt()
    return torch.addcmul(modulation.shift, unit_BHW, modulation.scale)


@cache
def _compiled_velocity() -> Callable[..., Tensor]:
    return torch.compile(_velocity)
