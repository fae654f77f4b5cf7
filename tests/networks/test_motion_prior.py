"""Shapes, mask laws and plain descriptions of the action expert."""

from dataclasses import replace

import pytest
import torch

from actionprior.batch import TrajectoryBatch
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from tests.helpers.robots import delta_arm, position_arm, windows

ROBOTS = [delta_arm(), position_arm()]
SMALL = PriorArchitecture(width=32, latent_width=8, encoder_depth=1, decoder_depth=2, heads=2)


def fitted(architecture: PriorArchitecture = SMALL, *, wake: bool = True) -> MotionPrior:
    """A fitted prior; ``wake`` gives its zero-initialised layers random weights."""
    torch.manual_seed(0)
    prior = MotionPrior(ROBOTS, architecture)
    prior.normalizer.fit(windows(ROBOTS, 64))
    if wake:
        for p in prior.decoder.parameters():
            torch.nn.init.normal_(p, std=0.1)
    return prior.eval()


def spoilt(batch: TrajectoryBatch) -> TrajectoryBatch:
    """The same windows with other values wherever a step is padded."""
    inside = batch.step_mask_BH[..., None]
    return batch._replace(
        action_BHA=torch.where(inside, batch.action_BHA, 77.0),
        state_BHS=torch.where(inside, batch.state_BHS, -33.0),
    )


def loss(prior: MotionPrior, batch: TrajectoryBatch, noise: torch.Tensor) -> torch.Tensor:
    r = torch.linspace(0, 1, len(noise))
    return prior.flow_loss(prior.encode(batch), batch, noise, r)


@pytest.mark.parametrize("inputs", ["action_state", "action"])
@pytest.mark.parametrize("sees_state", [False, True])
def test_latents_are_unit_vectors_and_chunks_have_the_robots_slots(
    inputs: str, sees_state: bool
) -> None:
    prior = fitted(replace(SMALL, inputs=inputs, decoder_sees_state=sees_state))
    batch = windows(ROBOTS, 6)
    z = prior.encode(batch)
    assert z.shape == (6, 8)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(6))
    noise = torch.randn(6, 15, 37)
    chunk = prior.sample_relative(z, batch.state_BHS[:, 0], batch.embodiment_B, noise, 4)
    assert chunk.shape == (6, 15, 37)
    slots = prior.normalizer.action_mask_EA[batch.embodiment_B][:, None].expand_as(chunk)
    assert not chunk[~slots].any()
    assert chunk[slots].abs().min() > 0


def test_what_is_padded_never_changes_a_latent_a_loss_or_a_gradient() -> None:
    prior, batch = fitted(), windows(ROBOTS, 6)
    noise = torch.randn(6, 15, 37)
    other_noise = torch.where(prior.normalizer.action_mask(batch), noise, 9.0)
    torch.testing.assert_close(prior.encode(spoilt(batch)), prior.encode(batch))
    one, two = loss(prior, batch, noise), loss(prior, spoilt(batch), other_noise)
    torch.testing.assert_close(one, two)
    wanted = torch.autograd.grad(one, prior.encoder.embed_action.weight)[0]
    found = torch.autograd.grad(two, prior.encoder.embed_action.weight)[0]
    torch.testing.assert_close(wanted, found)


def test_what_is_inside_does_change_the_latent_and_the_loss() -> None:
    prior, batch = fitted(), windows(ROBOTS, 6)
    moved = batch._replace(action_BHA=batch.action_BHA.clone())
    moved.action_BHA[:, 2, 29:35] += 0.5
    moved.action_BHA[:, 2, 7:13] += 0.5
    assert (prior.encode(moved) - prior.encode(batch)).norm(dim=-1).min() > 1e-3
    noise = torch.randn(6, 15, 37)
    assert (loss(prior, moved, noise) - loss(prior, batch, noise)).abs() > 1e-4


def test_the_loss_is_the_mean_over_unmasked_entries() -> None:
    prior, batch = fitted(wake=False), windows(ROBOTS, 6)  # a fresh decoder has zero velocity
    noise = torch.randn(6, 15, 37)
    mask = prior.normalizer.action_mask(batch)
    target = prior.normalizer.normalize_action(batch) - noise
    torch.testing.assert_close(loss(prior, batch, noise), target[mask].square().mean())


def test_repeated_draws_average_over_the_same_windows() -> None:
    prior, batch = fitted(), windows(ROBOTS, 6)
    noise, r = torch.randn(12, 15, 37), torch.rand(12)
    z = prior.encode(batch)
    both = prior.flow_loss(z, batch, noise, r)
    halves = [prior.flow_loss(z, batch, noise[i : i + 6], r[i : i + 6]) for i in (0, 6)]
    torch.testing.assert_close(both, sum(halves) / 2)


def test_the_order_of_steps_matters_and_rows_are_independent() -> None:
    prior, batch = fitted(), windows(ROBOTS, 6)
    flipped = batch._replace(action_BHA=batch.action_BHA.flip(1), state_BHS=batch.state_BHS.flip(1))
    assert (prior.encode(flipped) - prior.encode(batch))[:5].norm(dim=-1).min() > 1e-3
    single = TrajectoryBatch(*(t[2:3] for t in batch))
    torch.testing.assert_close(prior.encode(single)[0], prior.encode(batch)[2])


def test_an_action_only_prior_does_not_read_states() -> None:
    prior, batch = fitted(replace(SMALL, inputs="action")), windows(ROBOTS, 6)
    other = batch._replace(state_BHS=batch.state_BHS + 1)
    assert torch.equal(prior.encode(other), prior.encode(batch))


def test_latent_noise_has_its_length_and_stays_on_the_sphere() -> None:
    prior = fitted()
    z = torch.nn.functional.normalize(torch.randn(4000, 8), dim=-1)
    moved = prior.perturb(z, torch.randn(4000, 8), 0.2)
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(4000))
    assert float((moved - z).norm(dim=-1).square().mean().sqrt()) == pytest.approx(0.19, abs=0.01)
    assert prior.perturb(z, torch.randn(4000, 8), 0.0) is z


def test_description_is_plain_and_rebuilds_the_same_module() -> None:
    prior = fitted()
    again = MotionPrior.from_description(prior.describe())
    again.load_state_dict(prior.state_dict())
    batch = windows(ROBOTS, 4)
    torch.testing.assert_close(again.eval().encode(batch), prior.encode(batch))


def test_robots_may_join_and_old_ones_are_kept() -> None:
    prior, batch = fitted(), windows(ROBOTS, 4)
    before = prior.encode(batch)
    third = replace(delta_arm(), name="third")
    prior.add_embodiments([third])
    torch.testing.assert_close(prior.encode(batch), before)
    assert prior.index_of("third") == 2
    assert prior.normalizer.missing == ["third"]
    with pytest.raises(UserError, match="'nobody' is unknown; this prior knows"):
        prior.index_of("nobody")
