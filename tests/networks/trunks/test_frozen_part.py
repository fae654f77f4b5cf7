"""Test the identity of a trunk's frozen part, by which its features are cached."""

from typing import Any

import pytest
import torch

from actionprior.networks.trunks import CompactTrunk, SmallTrunk
from actionprior.networks.trunks.frozen_part import FrozenPart


def part(seed: int = 0, **kwargs: Any) -> FrozenPart:
    torch.manual_seed(seed)
    found = CompactTrunk("test_efficientnet", image_size=64, **kwargs).frozen_part()
    assert found is not None
    return found


def test_the_identity_changes_with_what_changes_features() -> None:
    same = part().identity()
    assert part().identity() == same
    assert part(keypoints=8, text_width=32).identity() == same, "nothing above is part of it"
    others = [part(seed=1), part(strides=(8,)), part(found={"mean": [0.1] * 3})]
    changed = part()
    next(changed.module.buffers()).add_(1)
    others.append(part(regions=[(0.0, 0.0, 0.5, 0.5)]))
    identities = {same, *(other.identity() for other in [*others, changed])}
    assert len(identities) == 6
    assert part(regions=[None]).identity() == same, "whole images"


@pytest.mark.parametrize("options", [{"freeze": False}, {"freeze": False, "train_image_blocks": 1}])
def test_a_network_that_trains_has_none(options: dict[str, Any]) -> None:
    assert CompactTrunk("test_efficientnet", image_size=64, **options).frozen_part() is None
    assert SmallTrunk().frozen_part() is None


def test_features_are_the_same_in_training_and_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    trunk = CompactTrunk("test_efficientnet", image_size=64)
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    found = trunk.frozen_part()
    assert found is not None
    expected = found.features(images)
    assert expected.shape == (3, found.width)
    trunk.train()
    assert torch.equal(found.features(images), expected)
    torch.testing.assert_close(found.features(images[1:2]), expected[1:2])
    assert not any(module.training for module in found.module.model.modules())  # type: ignore[union-attr]  # batch norm


def test_features_are_moved_by_the_distance() -> None:
    found = part()
    assert found.move is not None
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    # By two cells of the coarsest map, so that the network sees the same on its grid.
    shifted = torch.zeros_like(image)
    shifted[:, :, 32:] = image[:, :, :-32]
    seen = trunk_maps(found, shifted)
    moved = trunk_maps(found, shifted, torch.tensor([[-0.5, 0.0]]))
    for after, back in zip(seen, moved, strict=True):
        cells = after.shape[-1] // 2
        torch.testing.assert_close(back[..., :cells], after[..., cells:], rtol=1e-4, atol=1e-4)


def trunk_maps(
    found: FrozenPart, image: torch.Tensor, distance: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    features = found.features(image[None])
    if distance is not None and found.move is not None:
        features = found.move(features, distance)
    maps: tuple[torch.Tensor, ...] = found.module.unpack(features)  # type: ignore[operator]  # CompactTrunk's
    return maps
