"""The head that predicts the state at the next keyframe."""

import pytest
import torch

from actionprior.embodiment import STATE_WIDTH
from actionprior.embodiment.normalization import Normalizer
from actionprior.errors import UserError
from actionprior.networks.keyframe_head import KeyframeHead
from tests.helpers.robots import delta_arm, position_arm, windows


def fitted() -> Normalizer:
    robots = [delta_arm(), position_arm()]
    normalizer = Normalizer(robots, chunk_length=4)
    normalizer.fit(windows(robots, 64, 4))
    return normalizer


def test_only_the_slots_of_each_robot_count() -> None:
    normalizer, head = fitted(), KeyframeHead(8, 16)
    z_BZ = torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
    rows_B = torch.tensor([0, 1])
    keyframe_BS = torch.randn(2, STATE_WIDTH)
    loss = head.loss(z_BZ, keyframe_BS, normalizer, rows_B)
    other_BS = torch.where(normalizer.state_mask_ES[rows_B], keyframe_BS, 1e6)
    assert torch.equal(head.loss(z_BZ, other_BS, normalizer, rows_B), loss)
    target_BS = normalizer.normalize_state(keyframe_BS[:, None], rows_B)[:, 0]
    mask_BS = normalizer.state_mask_ES[rows_B]
    assert torch.allclose(loss, (head(z_BZ) - target_BS)[mask_BS].square().mean())


def test_passes_over_the_same_observations_are_averaged() -> None:
    normalizer, head = fitted(), KeyframeHead(8, 16)
    z_BZ, rows_B = torch.randn(4, 8), torch.tensor([1, 0])
    keyframe_BS = torch.randn(2, STATE_WIDTH)
    both = head.loss(z_BZ, keyframe_BS, normalizer, rows_B)
    each = [head.loss(part, keyframe_BS, normalizer, rows_B) for part in z_BZ.split(2)]
    assert torch.allclose(both, sum(each) / 2)


def test_data_without_keyframes_are_refused() -> None:
    with pytest.raises(UserError, match="keyframe_weight is set, but the batches"):
        KeyframeHead(8, 16).loss(torch.randn(1, 8), None, fitted(), torch.tensor([0]))
