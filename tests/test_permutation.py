import numpy as np
import pytest

from actionprior.permutation import mix, permute


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 1000, 65537])
def test_every_index_goes_somewhere_and_no_two_to_the_same_place(size: int) -> None:
    for key in (mix(0), mix(1, 2)):
        found = permute(np.arange(size), size, key)
        assert sorted(found.tolist()) == list(range(size))


def test_parts_of_a_range_are_permuted_as_the_whole_is() -> None:
    whole = permute(np.arange(1000), 1000, mix(5))
    assert np.array_equal(permute(np.arange(300, 400), 1000, mix(5)), whole[300:400])


def test_keys_may_differ_from_index_to_index() -> None:
    keys = np.array([mix(i % 3) for i in range(60)])
    found = permute(np.arange(60), 60, keys)
    for key in range(3):
        alone = permute(np.arange(60), 60, mix(key))
        assert np.array_equal(found[key::3], alone[key::3])


def test_keys_give_unrelated_orders_and_places_are_even() -> None:
    size, keys = 50, 4000
    found = np.stack([permute(np.arange(size), size, mix(7, k)) for k in range(keys)])
    expected = keys / size
    counts = np.stack([np.bincount(found[:, i], minlength=size) for i in range(size)])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 49 x 49 degrees of freedom: mean 2401, standard deviation 69.
    assert abs(chi_square - 2401) < 5 * 69
    # Neighbours do not stay neighbours: 2/50 of them do by chance.
    assert (np.abs(np.diff(found, axis=1)) == 1).mean() < 0.05


def test_mixed_bits_are_even() -> None:
    bits = np.unpackbits(mix(3, np.arange(20000)).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.003
