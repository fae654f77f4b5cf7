"""Sampling computes what the decoder's ``forward`` computes, with less work."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from actionprior.flow_matching import INTEGRATORS, Integrator, integrate
from actionprior.networks.language_blocks import LanguageSize
from actionprior.networks.motion_prior import (
    KnownSteps,
    MotionPrior,
    PriorArchitecture,
    first_steps,
)
from tests.helpers.robots import delta_arm, position_arm, windows

ROBOTS = [delta_arm(), position_arm()]
SMALL = PriorArchitecture(width=32, latent_width=8, encoder_depth=1, decoder_depth=2, heads=2)
STEPS = 4


def awake(architecture: PriorArchitecture = SMALL) -> MotionPrior:
    """A fitted prior whose zero-initialised layers have random weights."""
    torch.manual_seed(0)
    prior = MotionPrior(ROBOTS, architecture)
    prior.normalizer.fit(windows(ROBOTS, 64))
    for p in prior.decoder.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return prior.eval()


def inputs(batch: int) -> dict[str, Tensor]:
    seen = windows(ROBOTS, batch)
    z_BZ = torch.nn.functional.normalize(torch.randn(batch, 8), dim=-1)
    return {
        "z_BZ": z_BZ,
        "state_BS": seen.state_BHS[:, 0],
        "embodiment_B": seen.embodiment_B,
        "noise_BHA": torch.randn(batch, 15, 37),
    }


@torch.no_grad()
def by_forward(
    prior: MotionPrior,
    given: dict[str, Tensor],
    method: Integrator,
    known: KnownSteps | None = None,
    trained_on_known: bool = False,
) -> Tensor:
    """Sample with one call of the decoder's ``forward`` per velocity."""
    n, robots_B = prior.normalizer, given["embodiment_B"]
    state_BS = n.normalize_state(given["state_BS"][:, None], robots_B)[:, 0]
    slots_B1A = n.action_mask_EA[robots_B][:, None]
    start_BHA = torch.where(slots_B1A, given["noise_BHA"], 0.0)

    def place(x_BHA: Tensor, r_BH: Tensor) -> Tensor:
        assert known is not None
        on_path_BHA = r_BH[..., None] * known.action_BHA + (1 - r_BH[..., None]) * start_BHA
        return torch.where(known.mask_BH[..., None], on_path_BHA, x_BHA)

    def velocity(x_BHA: Tensor, r_B: Tensor) -> Tensor:
        r_BH = r_B[:, None].expand(-1, 15)
        if known is not None:
            if trained_on_known:
                r_BH = torch.where(known.mask_BH, 1.0, r_BH)
            x_BHA = place(x_BHA, r_BH)
        v_BHA = prior.decoder(x_BHA, r_BH, given["z_BZ"], state_BS)
        return torch.where(slots_B1A, v_BHA, 0.0)

    end_BHA = integrate(velocity, start_BHA, STEPS, method)
    if known is not None:
        end_BHA = place(end_BHA, torch.ones(end_BHA.shape[:2]))
    return n.unnormalize_action(end_BHA, robots_B)


@pytest.mark.parametrize("method", INTEGRATORS)
@pytest.mark.parametrize("sees_state", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 100])  # of 100 rows, not all calls are prepared at once
def test_sampling_is_that_of_forward(method: Integrator, sees_state: bool, batch: int) -> None:
    prior, given = awake(replace(SMALL, decoder_sees_state=sees_state)), inputs(batch)
    found = prior.sample_relative(**given, steps=STEPS, method=method)
    wanted = by_forward(prior, given, method)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 20, 300])  # of 300 rows, each call is prepared by itself
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_language_models_blocks_sample_as_in_forward(batch: int, precision: torch.dtype) -> None:
    language = LanguageSize(kv_heads=1, head_width=16, mlp_width=48, head_norms=True)
    prior, given = awake(replace(SMALL, language=language)), inputs(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = prior.sample_relative(**given, steps=STEPS)
        wanted = by_forward(prior, given, "euler")
    assert wanted.abs().max() > 0.1
    close = 1e-5 if precision == torch.float32 else 5e-2
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)


def test_modulations_of_a_language_models_blocks_are_computed_once() -> None:
    language = LanguageSize(kv_heads=1, head_width=16, mlp_width=48)
    prior, given, calls = awake(replace(SMALL, language=language)), inputs(1), []
    modulation = prior.decoder.blocks[0].input_layernorm.modulation
    modulation.register_forward_hook(lambda *_: calls.append(1))
    prior.sample_relative(**given, steps=STEPS)
    assert calls == [1]


@pytest.mark.parametrize("method", INTEGRATORS)
@pytest.mark.parametrize("trained_on_known", [False, True])
def test_known_steps_are_those_of_forward(method: Integrator, trained_on_known: bool) -> None:
    prior, given = awake(), inputs(3)
    known = KnownSteps(torch.randn(3, 15, 37), first_steps(torch.tensor([0, 4, 15]), 15))
    found = prior.sample_relative(
        **given, steps=STEPS, method=method, known=known, trained_on_known=trained_on_known
    )
    wanted = by_forward(prior, given, method, known, trained_on_known)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_tokens_that_are_almost_zero_have_the_norm_of_forward() -> None:
    prior, given = awake(), inputs(2)
    with torch.no_grad():
        for parameter in (*prior.decoder.embed_action.parameters(), prior.decoder.position_HW):
            parameter.mul_(1e-4)
    found = prior.sample_relative(**given, steps=STEPS)
    torch.testing.assert_close(found, by_forward(prior, given, "euler"), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_as_close_as_that_of_forward() -> None:
    prior, given = awake(), inputs(2)
    exact = by_forward(prior, given, "euler")
    with torch.autocast("cpu", torch.bfloat16):
        found = prior.sample_relative(**given, steps=STEPS)
        wanted = by_forward(prior, given, "euler")
    assert (found - exact).abs().max() < 2 * (wanted - exact).abs().max()


@pytest.mark.parametrize("part", ["decoder", "block"])
def test_hooks_of_the_decoder_and_its_blocks_run(part: str) -> None:
    prior, given, calls = awake(), inputs(1), []
    module = prior.decoder if part == "decoder" else prior.decoder.blocks[0]

    def count(*_: Any) -> None:
        calls.append(part)

    handle = module.register_forward_pre_hook(count)
    hooked = prior.sample_relative(**given, steps=STEPS)
    assert len(calls) == STEPS
    handle.remove()
    torch.testing.assert_close(hooked, prior.sample_relative(**given, steps=STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("language", [None, LanguageSize(1, 16, 48)])
def test_a_compiled_decoder_samples_the_same(language: LanguageSize | None) -> None:
    prior, given = awake(replace(SMALL, language=language)), inputs(1)
    wanted = prior.sample_relative(**given, steps=STEPS)
    prior.decoder.compile()
    found = prior.sample_relative(**given, steps=STEPS)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
