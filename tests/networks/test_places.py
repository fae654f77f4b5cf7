"""Test places as features, and that relative ones do not depend on where everything is."""

import torch

from actionprior.networks.places import place_features, relative_places, relative_width


def test_places_stay_readable() -> None:
    places = torch.rand(5, 3)
    torch.testing.assert_close(place_features(places)[..., :3] * 0.2, places)


def test_only_distances_count() -> None:
    generator = torch.Generator().manual_seed(0)
    things, tip = (torch.rand(2, 3, 2, 3, generator=generator), torch.rand(2, 3))
    found = relative_places(things, tip)
    assert found.shape == (2, 3, relative_width(2))
    moved = torch.tensor([0.1, -0.2, 0.05])
    torch.testing.assert_close(relative_places(things + moved, tip + moved), found)
    assert not torch.allclose(relative_places(things, tip + moved), found, atol=1e-2)


def test_each_thing_is_seen_from_the_tip_and_from_the_others() -> None:
    things = torch.tensor([[[[0.5, 0.0, 0.1], [0.2, 0.3, 0.0], [0.4, 0.1, 0.2]]]])
    tip = torch.tensor([[0.3, 0.0, 0.2]])
    found = relative_places(things, tip).reshape(6, -1)[:, :3] * 0.2
    first, second, third = things[0, 0]
    expected = [*(things[0, 0] - tip), second - first, third - first, third - second]
    # Vectors come feature by feature: the places of all six first.
    torch.testing.assert_close(found, torch.stack(expected))


def test_nothing_gives_nothing() -> None:
    assert relative_width(0) == 0
    assert relative_places(torch.zeros(2, 1, 0, 3), torch.zeros(2, 3)).shape == (2, 1, 0)
