"""Blocks of language models compute what transformers computes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from actionprior.errors import UserError
from actionprior.networks.language_blocks import LanguageBlock, LanguageSize, RotaryPositions
from actionprior.networks.language_start import new_prior
from actionprior.networks.motion_prior import PriorArchitecture
from tests.helpers.language_models import MODELS, write_language_model
from tests.helpers.robots import delta_arm

MASK = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])


def inputs() -> Tensor:
    return torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))


def expected_layers(model: torch.nn.Module, x_BNW: Tensor) -> list[Tensor]:
    """Hidden states after each of the model's own layers, attending in both directions."""
    attend = MASK[:, None, None, :].expand(2, 1, 7, 7)
    positions = model.rotary_emb(x_BNW, torch.arange(7)[None])
    states = []
    for layer in model.layers:
        x_BNW = layer(x_BNW, attention_mask=attend, position_embeddings=positions)
        states.append(x_BNW)
    return states


@pytest.mark.parametrize("kind", MODELS)
def test_encoder_and_decoder_start_as_the_models_layers(kind: str, tmp_path: Path) -> None:
    model = write_language_model(kind, tmp_path)
    architecture = PriorArchitecture(init_from=f"local-dir:{tmp_path}", latent_width=16)
    prior = new_prior([delta_arm()], architecture)
    assert prior.architecture.encoder_depth == prior.architecture.decoder_depth == 3
    x_BNW = own = adaptive = inputs()
    condition = torch.randn(2, 1, 32)
    rotation = RotaryPositions(prior.architecture.language)(7)
    with torch.no_grad():
        wanted = expected_layers(model, x_BNW)
        for depth, state in enumerate(wanted):
            own = prior.encoder.blocks[depth](own, MASK, rotation)
            adaptive = prior.decoder.blocks[depth](adaptive, MASK, condition, rotation)
            torch.testing.assert_close(own[MASK], state[MASK], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(adaptive[MASK], state[MASK], atol=1e-5, rtol=1e-4)
        first = prior.encoder.blocks[0](x_BNW, MASK, rotation, first=2)
        torch.testing.assert_close(first[0], wanted[0][0, :2], atol=1e-5, rtol=1e-4)
        assert torch.equal(prior.encoder.norm.weight, model.norm.weight)


def test_a_condition_changes_the_decoder_once_it_is_trained(tmp_path: Path) -> None:
    write_language_model("qwen3", tmp_path)
    prior = new_prior([delta_arm()], PriorArchitecture(init_from=f"local-dir:{tmp_path}"))
    block, x_BNW, rotation = prior.decoder.blocks[0], inputs(), prior.decoder.rotary(7)
    out = block(x_BNW, None, torch.randn(2, 1, 32), rotation)
    out.square().sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    torch.nn.init.normal_(block.input_layernorm.modulation.weight, std=0.1)
    assert (block(x_BNW, None, torch.randn(2, 1, 32), rotation) - out).abs().max() > 1e-3


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="3 heads are not a multiple of 2 kv_heads"):
        LanguageBlock(32, 3, LanguageSize(2, 8, 16))
    with pytest.raises(UserError, match="head_width is 7; expected an even number"):
        LanguageSize(2, 7, 16)
    with pytest.raises(UserError, match=r"language\.kv_heads is 0"):
        LanguageSize(0, 8, 16)
