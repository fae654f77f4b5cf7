"""Masks and zero-initialised modulation."""

import pytest
import torch

from actionprior.networks.transformer import AdaptiveBlock, Attention, TransformerBlock, read_first


def test_masked_tokens_are_not_attended_to() -> None:
    block = TransformerBlock(16, 2)
    x, mask = torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:] = False
    other = x.clone()
    other[:, 3:] = torch.randn(3, 2, 16)
    torch.testing.assert_close(block(x, mask)[:, :3], block(other, mask)[:, :3])
    full = torch.ones_like(mask)
    assert (block(x, full) - block(other, full))[:, :3].abs().max() > 1e-3


def test_without_a_mask_all_tokens_are_attended_to() -> None:
    block = AdaptiveBlock(16, 2, 8)
    for norm in (block.norm_attention, block.norm_mlp):
        torch.nn.init.normal_(norm.modulation.weight, std=0.2)
    x, condition = torch.randn(3, 5, 16), torch.randn(3, 1, 8)
    full = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(block(x, None, condition), block(x, full, condition))


def test_a_fresh_adaptive_block_is_the_identity_and_then_follows_its_condition() -> None:
    block = AdaptiveBlock(16, 2, 8)
    x, mask = torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool)
    assert torch.equal(block(x, mask, torch.randn(3, 1, 8)), x)
    for norm in (block.norm_attention, block.norm_mlp):
        torch.nn.init.normal_(norm.modulation.weight, std=0.2)
    one, two = block(x, mask, torch.randn(3, 1, 8)), block(x, mask, torch.randn(3, 1, 8))
    assert (one - two).abs().max() > 1e-2


def test_the_first_token_is_the_same_when_the_last_block_computes_no_other() -> None:
    blocks = torch.nn.ModuleList([TransformerBlock(16, 2), TransformerBlock(16, 2)])
    x, mask = torch.randn(3, 5, 16, requires_grad=True), torch.ones(3, 5, dtype=torch.bool)
    mask[0, 3:] = False
    whole = x
    for block in blocks:
        whole = block(whole, mask)
    first = read_first(blocks, x, mask)
    assert first.shape == (3, 1, 16)
    torch.testing.assert_close(first, whole[:, :1])
    parameters = [x, *blocks.parameters()]
    for found, expected in zip(
        torch.autograd.grad(first.square().sum(), parameters),
        torch.autograd.grad(whole[:, :1].square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    assert read_first(torch.nn.ModuleList(), x, mask).shape == (3, 1, 16)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4 heads"):
        Attention(10, 4)
