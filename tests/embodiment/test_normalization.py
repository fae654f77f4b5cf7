"""Relative form, masks and statistics."""

import math

import pytest
import torch

from actionprior.embodiment.normalization import MissingStatisticsError, Normalizer
from actionprior.embodiment.rotations import wrapped
from tests.helpers.robots import delta_arm, position_arm, tool_arm, windows

ROBOTS = [delta_arm(), position_arm()]


@pytest.mark.parametrize("law", ["quantile", "mean_std"])
def test_normalise_then_unnormalise_is_the_identity(law: str) -> None:
    robots = [*ROBOTS, tool_arm()]
    normalizer, batch = Normalizer(robots, law), windows(robots, 64)
    normalizer.fit(batch)
    normal = normalizer.normalize_action(batch)
    relative = normalizer.unnormalize_action(normal, batch.embodiment_B)
    action = normalizer.absolute_action(relative, batch.reference_BA, batch.embodiment_B)
    mask = normalizer.action_mask(batch)
    off = action - batch.action_BHA
    angles = batch.embodiment_B == robots.index(position_arm())
    off[angles] = wrapped(off[angles])  # a whole turn is no other angle
    torch.testing.assert_close(off[mask], torch.zeros_like(off[mask]), atol=1e-5, rtol=0)


def test_deltas_are_summed_and_positions_are_relative() -> None:
    batch = windows(ROBOTS, 2)
    normalizer = Normalizer(ROBOTS)
    relative = normalizer.relative_action(batch)
    torch.testing.assert_close(relative[0, :, 29:36], batch.action_BHA[0, :, 29:36].cumsum(0))
    torch.testing.assert_close(relative[0, :, 36], batch.action_BHA[0, :, 36])  # gripper
    expected = batch.action_BHA[1, :3, 7:13] - batch.reference_BA[1, 7:13]
    torch.testing.assert_close(relative[1, :3, 7:13], expected)


def test_orientations_are_learnt_as_the_turn_from_the_reference() -> None:
    robots = [delta_arm(), tool_arm()]  # the arm's slots are none of a rotation's
    batch = windows(robots, 4)
    normalizer = Normalizer(robots)
    near, past = torch.tensor([0, 0, math.pi - 0.01]), torch.tensor([0, 0, -math.pi + 0.01])
    batch.action_BHA[1, :, 10:13], batch.reference_BA[1, 10:13] = past, near
    relative = normalizer.relative_action(batch)
    torch.testing.assert_close(relative[1, 0, 10:13], torch.tensor([0, 0, 0.02]), atol=1e-5, rtol=0)
    expected = batch.action_BHA[1, :, 7:10] - batch.reference_BA[1, 7:10]
    torch.testing.assert_close(relative[1, :, 7:10], expected)
    torch.testing.assert_close(
        relative[::2], Normalizer(robots[:1]).relative_action(type(batch)(*(t[::2] for t in batch)))
    )


def test_what_is_padded_or_of_another_robot_changes_nothing() -> None:
    batch = windows(ROBOTS, 64)
    normalizer, other = Normalizer(ROBOTS), Normalizer(ROBOTS)
    normalizer.fit(batch)
    mask = normalizer.action_mask(batch)
    spoilt = batch._replace(
        action_BHA=torch.where(mask, batch.action_BHA, 1e6),
        state_BHS=torch.where(batch.step_mask_BH[..., None], batch.state_BHS, -1e6),
    )
    other.fit(spoilt)
    for name, value in normalizer.state_dict().items():
        if name.startswith("action") or name == "fitted_E":
            torch.testing.assert_close(other.state_dict()[name], value)
    torch.testing.assert_close(
        normalizer.normalize_action(spoilt), normalizer.normalize_action(batch)
    )
    assert not normalizer.normalize_action(batch)[~mask].any()


def test_quantiles_map_to_one_and_narrow_ranges_have_a_floor() -> None:
    robot = delta_arm()
    batch = windows([robot], 512)
    batch.action_BHA[:, :, 30] *= 1e-5  # hardly moves
    batch.action_BHA[:, :, 36] = 1.0  # a gripper that stays open
    batch.step_mask_BH[:] = True
    normalizer = Normalizer([robot])
    normalizer.fit(batch)
    normal = normalizer.normalize_action(batch)
    inside = (normal[:, :, 29].abs() <= 1.0001).float().mean()
    assert float(inside) == pytest.approx(0.98, abs=0.005)
    scale = normalizer.action_range_EA[0]
    assert float(scale[30]) == pytest.approx(0.05 * float(scale[29:36].max()))
    assert float(scale[36]) == 1.0
    assert float(normal[:, :, 36].abs().max()) == 0.0
    assert float(normalizer.action_scale[0, :, :29].min()) == 1.0


RARE = {
    "a gripper of 0 to 255": 255.0,
    "ticks": 4095.0,
    "percent": 100.0,
    "metres": 0.08,
    "millionths": 1e-9,
}


@pytest.mark.parametrize("law", ["quantile", "mean_std"])
@pytest.mark.parametrize("size", RARE.values(), ids=RARE)
def test_rare_motions_stay_within_a_few_units(size: float, law: str) -> None:
    robot = delta_arm()
    batch = windows([robot], 4000)
    batch.step_mask_BH[:] = True
    batch.action_BHA[:, :, 36] = 0.0
    batch.action_BHA[:20, :, 36] = size  # closed in 0.5 % of the windows
    batch.state_BHS[:, :, 15] = 0.0
    batch.state_BHS[:20, :, 15] = size
    normalizer = Normalizer([robot], law)
    normalizer.fit(batch)
    normal = normalizer.normalize_action(batch)
    assert 1 < float(normal.abs().max()) < 6
    assert 1 < float(normal[:20, :, 36].min() - normal[20:, :, 36].max()) < 6
    assert float(normalizer.normalize_state(batch.state_BHS, batch.embodiment_B).abs().max()) < 6
    back = normalizer.unnormalize_action(normal, batch.embodiment_B)
    torch.testing.assert_close(back[..., 36], batch.action_BHA[..., 36], rtol=1e-5, atol=0)


def test_a_motion_of_any_unit_is_learnt() -> None:
    batch, scaled = windows([delta_arm()], 512), windows([delta_arm()], 512)
    scaled = scaled._replace(action_BHA=1e-8 * batch.action_BHA, state_BHS=1e-8 * batch.state_BHS)
    found = []
    for sample in (batch, scaled):
        normalizer = Normalizer([delta_arm()])
        normalizer.fit(sample)
        found.append(normalizer.normalize_action(sample))
    torch.testing.assert_close(found[0], found[1])
    assert float(found[0].abs().max()) > 1


def test_a_joint_that_differs_by_rounding_stands_still() -> None:
    robot = position_arm()
    batch = windows([robot], 512)
    batch.reference_BA[:, 7:13] = 1.0
    batch.action_BHA[..., 7:13] = 1.0 + 1e-7 * torch.randn(512, 15, 6).sign()
    batch.embodiment_B[:] = 0
    normalizer = Normalizer([robot])
    normalizer.fit(batch)
    assert (normalizer.action_scale[0, :, 7:13] == 1).all()


def test_a_few_wild_frames_do_not_change_the_scale() -> None:
    batch = windows([delta_arm()], 2000)
    batch.step_mask_BH[:] = True
    normalizer, spoilt = Normalizer([delta_arm()]), Normalizer([delta_arm()])
    normalizer.fit(batch)
    batch.state_BHS[700, 3, 9] = 1e6
    spoilt.fit(batch)
    torch.testing.assert_close(normalizer.state_scale, spoilt.state_scale, rtol=1e-3, atol=0)


def test_each_step_of_a_chunk_has_its_own_scale_and_short_episodes_lend_theirs() -> None:
    robot = delta_arm()
    batch = windows([robot], 512)
    batch.step_mask_BH[:] = True
    batch.step_mask_BH[:, 12:] = False  # no episode is longer than 12 steps
    normalizer = Normalizer([robot], chunk_length=batch.step_mask_BH.shape[1])
    normalizer.fit(batch)
    normal = normalizer.normalize_action(batch)
    for step in (0, 11):
        inside = (normal[:, step, 29].abs() <= 1.0001).float().mean()
        assert float(inside) == pytest.approx(0.98, abs=0.01)
    scale = normalizer.action_scale[0]
    assert float(scale[11, 29]) > 2 * float(scale[0, 29])  # sums of deltas spread out
    torch.testing.assert_close(scale[12:], scale[11].expand_as(scale[12:]))


def test_a_history_longer_than_a_chunk_continues_with_the_last_scale() -> None:
    batch = windows(ROBOTS, 64)
    short = batch._replace(
        action_BHA=batch.action_BHA[:, :5],
        state_BHS=batch.state_BHS[:, :5],
        step_mask_BH=batch.step_mask_BH[:, :5],
    )
    normalizer = Normalizer(ROBOTS, chunk_length=5)
    normalizer.fit(short)
    relative = normalizer.relative_action(batch)
    row, last = batch.embodiment_B[:, None], torch.full((1, 5), 4)
    expected = (relative[:, 5:10] - normalizer.action_center[row, last]) / normalizer.action_scale[
        row, last
    ]
    mask = normalizer.action_mask(batch)[:, 5:10]
    found = normalizer.normalize_action(batch)[:, 5:10]
    torch.testing.assert_close(found[mask], expected[mask])


def test_statistics_are_missing_until_fitted_and_are_kept_when_robots_join() -> None:
    normalizer = Normalizer([delta_arm()])
    with pytest.raises(MissingStatisticsError, match="'panda'"):
        normalizer.require_fitted()
    normalizer.fit(windows([delta_arm()], 32))
    before = normalizer.action_scale[0].clone()
    normalizer.add_embodiments([position_arm()])
    assert normalizer.missing == ["kuka"]
    normalizer.fit(windows(ROBOTS, 64, seed=5, spread=2.0))
    assert normalizer.missing == []
    torch.testing.assert_close(normalizer.action_scale[0], before)


def test_a_robot_without_windows_is_named() -> None:
    normalizer = Normalizer(ROBOTS)
    with pytest.raises(MissingStatisticsError, match="no training window of embodiment 'kuka'"):
        normalizer.fit(windows([delta_arm()], 8))


def test_angles_go_the_shorter_way_round() -> None:
    """A joint that turns through π, whose states and commands are recorded within ±π."""
    robots = [position_arm(), delta_arm()]  # the arm's are no angles
    batch = windows(robots, 4)
    normalizer = Normalizer(robots)
    plain = normalizer.relative_action(batch)
    batch.reference_BA[0, 7] = math.pi - 0.01
    batch.action_BHA[0, :, 7] = -math.pi + 0.01
    relative = normalizer.relative_action(batch)
    torch.testing.assert_close(relative[0, 0, 7], torch.tensor(0.02), atol=1e-5, rtol=0)
    assert torch.equal(relative[1:], plain[1:])
    back = normalizer.absolute_action(relative, batch.reference_BA, batch.embodiment_B)
    # A command continues beyond π: -π would be a whole turn back for a joint that may go there.
    torch.testing.assert_close(back[0, 0, 7], torch.tensor(math.pi + 0.01), atol=1e-5, rtol=0)
