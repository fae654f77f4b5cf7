"""Committed steps, and what a policy reads of its cameras without attention."""

from dataclasses import replace

import pytest
import torch

from actionprior.batch import Committed, Observation
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import TrunkTokens
from tests.helpers.policies import SMALL, tiny_network
from tests.helpers.robots import delta_arm, position_arm, tool_arm, windows
from tests.helpers.synthetic import BrightnessTrunk

ROBOTS = [delta_arm(), position_arm(), tool_arm()]


def seen(network: PolicyNetwork, rows: int = 6) -> Observation:
    now = windows(ROBOTS, rows, SMALL.chunk_length, seed=5)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (rows, 1, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Observation(
        images,
        torch.ones(rows, 1, dtype=torch.bool),
        ["reach"] * rows,
        now.state_BHS[:, 0],
        now.reference_BA,
        windows(ROBOTS, rows, SMALL.history_length, seed=6),
        now.embodiment_B,
    )


@pytest.mark.parametrize("prefix_steps", [0, 4], ids=["inpainted", "trained"])
def test_committed_steps_come_back_and_the_others_follow(prefix_steps: int) -> None:
    network = tiny_network(ROBOTS, prefix_steps=prefix_steps)
    observation, noise = seen(network), torch.randn(6, 12, 37)
    plain = network.predict_chunk(observation, noise)
    before = network.predict_chunk(observation, torch.randn(6, 12, 37))
    steps = torch.tensor([0, 1, 2, 3, 4, 4])
    chunk = network.predict_chunk(observation, noise, Committed(before, steps))
    for row, count in enumerate(steps.tolist()):
        torch.testing.assert_close(chunk[row, :count], before[row, :count], atol=1e-4, rtol=0)
    torch.testing.assert_close(chunk[0], plain[0], atol=1e-5, rtol=0)  # nothing committed
    assert not torch.allclose(chunk[4, 4:], plain[4, 4:], atol=1e-3)
    # What lies behind the committed steps is never looked at.
    spoilt = before.clone()
    spoilt[4, 4:] = 50.0
    again = network.predict_chunk(observation, noise, Committed(spoilt, steps))
    torch.testing.assert_close(again[4], chunk[4], atol=1e-5, rtol=0)


def test_more_committed_steps_than_trained_on_are_inpainted() -> None:
    trained, plain = tiny_network(ROBOTS, prefix_steps=2), tiny_network(ROBOTS)
    observation, noise = seen(trained), torch.randn(6, 12, 37)
    before = plain.predict_chunk(observation, torch.randn(6, 12, 37))
    for count, same in ((2, False), (3, True)):
        committed = Committed(before, torch.full((6,), count))
        chunks = [n.predict_chunk(observation, noise, committed) for n in (trained, plain)]
        assert torch.allclose(*chunks, atol=1e-6) == same


def test_known_steps_are_left_out_of_the_loss() -> None:
    prior = tiny_network(ROBOTS).prior
    window = windows(ROBOTS, 6, SMALL.chunk_length, seed=9)
    z = torch.nn.functional.normalize(torch.randn(6, 16), dim=-1)
    noise, r = torch.randn(6, 12, 37), torch.rand(6)
    none = prior.flow_loss(z, window, noise, r)
    torch.testing.assert_close(
        prior.flow_loss(z, window, noise, r, torch.zeros(6, dtype=torch.int64)), none
    )
    known = torch.full((6,), 5)
    loss = prior.flow_loss(z, window, noise, r, known)
    other = noise.clone()
    other[:, :5] = torch.randn(6, 5, 37)  # the noise of known steps is not seen either
    torch.testing.assert_close(prior.flow_loss(z, window, other, r, known), loss)
    assert not torch.allclose(loss, none)


def test_acting_and_training_see_the_same() -> None:
    for history in ("off", "encoder", "mlp"):
        network = tiny_network(ROBOTS, history=history)
        observation = seen(network)
        torch.testing.assert_close(
            network.latent(observation), network.latents(observation).with_history_BZ
        )


def test_a_prefix_that_is_too_long_is_refused() -> None:
    with pytest.raises(UserError, match="prefix_steps is 12; expected 0 to 11"):
        tiny_network(prefix_steps=12)


# ---- summaries of cameras ---------------------------------------------------------------------


class SummaryTrunk(BrightnessTrunk):
    """Brightness of each camera, as its summary, too."""

    summary_width = 16

    def forward(
        self, images_BCKYX: torch.Tensor, camera_mask_BC: torch.Tensor, task: list[str]
    ) -> TrunkTokens:
        tokens = super().forward(images_BCKYX, camera_mask_BC, task)
        cameras = images_BCKYX.shape[1]
        summary_BCF = tokens.tokens_BNW[:, :cameras] * camera_mask_BC[..., None]
        return tokens._replace(summary_BCF=summary_BCF)


def two_cameras(observation: Observation, *, second_exists: bool) -> Observation:
    images = observation.images_BCKYX
    mask = observation.camera_mask_BC
    return observation._replace(
        images_BCKYX=torch.cat([images, 255 - images], dim=1),
        camera_mask_BC=torch.cat([mask, torch.full_like(mask, second_exists)], dim=1),
    )


def network_of(trunk: type[BrightnessTrunk]) -> PolicyNetwork:
    robots = [replace(robot, cameras=["front", "wrist"]) for robot in ROBOTS]
    torch.manual_seed(0)
    network = PolicyNetwork(robots, trunk(), MotionPrior(robots, SMALL), width=32, heads=2)
    network.prior.normalizer.fit(windows(ROBOTS, 64, SMALL.chunk_length))
    return network.eval()


def test_absent_cameras_count_for_nothing_in_the_summary() -> None:
    network = network_of(SummaryTrunk)
    observation = seen(network)
    one = network.latent(observation)
    padded = network.latent(two_cameras(observation, second_exists=False))
    torch.testing.assert_close(padded, one)
    both = network.latent(two_cameras(observation, second_exists=True))
    assert (both - one).abs().amax() > 1e-4


def test_the_query_starts_from_the_summaries() -> None:
    network = network_of(SummaryTrunk)
    observation = two_cameras(seen(network), second_exists=True)
    before = network.latent(observation)
    assert network.fusion.from_summary is not None
    torch.nn.init.zeros_(network.fusion.from_summary.weight)
    assert (network.latent(observation) - before).abs().amax() > 1e-4


class PlacesTrunk(BrightnessTrunk):
    """Brightness of each camera, as the place of a thing, too."""

    things = 1

    def forward(
        self, images_BCKYX: torch.Tensor, camera_mask_BC: torch.Tensor, task: list[str]
    ) -> TrunkTokens:
        tokens = super().forward(images_BCKYX, camera_mask_BC, task)
        place_BC = images_BCKYX.float().mean(dim=(2, 3, 4)) / 255
        return tokens._replace(thing_BCR3=place_BC[..., None, None].expand(-1, -1, 1, 3))


def test_places_are_read_from_the_tip() -> None:
    network = network_of(PlacesTrunk)
    observation = seen(network)
    one = network.latent(observation)
    padded = network.latent(two_cameras(observation, second_exists=False))
    torch.testing.assert_close(padded, one)
    assert network.fusion.from_summary is not None
    torch.nn.init.zeros_(network.fusion.from_summary.bias)
    weight = network.fusion.from_summary.weight
    torch.nn.init.zeros_(weight)
    without = network.latent(observation)
    with torch.no_grad():
        weight[:, 2] = 5.0  # how high the first camera's thing is over the tip
    assert (network.latent(observation) - without).abs().amax() > 1e-4
    state = observation.state_BS.clone()
    state[:, 2] = observation.images_BCKYX[:, 0].float().mean(dim=(1, 2, 3)) / 255
    raised = observation._replace(state_BS=state)
    at_tip = network.latent(raised)
    torch.nn.init.zeros_(weight)
    torch.testing.assert_close(network.latent(raised), at_tip)


def test_a_trunk_without_summaries_adds_no_weights() -> None:
    assert tiny_network(ROBOTS).fusion.from_summary is None
