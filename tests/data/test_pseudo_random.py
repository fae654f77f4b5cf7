import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actionprior.data.pseudo_random import mix, permute

KEYS = st.integers(0, 2**63 - 1)


@given(size=st.integers(1, 3000), key=KEYS)
def test_every_index_goes_somewhere_and_no_two_to_the_same_place(size: int, key: int) -> None:
    found = permute(np.arange(size), size, mix(key))
    assert np.array_equal(np.sort(found), np.arange(size))


@given(size=st.integers(1, 10**12), key=KEYS, data=st.data())
def test_indices_of_any_size_stay_in_range_and_apart(size: int, key: int, data) -> None:
    first = data.draw(st.integers(0, max(0, size - 300)))
    found = permute(np.arange(first, min(first + 300, size)), size, mix(key))
    assert found.min() >= 0
    assert found.max() < size
    assert len(np.unique(found)) == len(found)


@given(size=st.integers(1, 2000), key=KEYS, data=st.data())
def test_parts_of_a_range_are_permuted_as_the_whole_is(size: int, key: int, data) -> None:
    whole = permute(np.arange(size), size, mix(key))
    chosen = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(permute(chosen, size, mix(key)), whole[chosen])


def test_keys_may_differ_from_index_to_index() -> None:
    keys = np.array([mix(i % 3) for i in range(60)])
    found = permute(np.arange(60), 60, keys)
    for key in range(3):
        single = permute(np.arange(60), 60, mix(key))
        assert np.array_equal(found[key::3], single[key::3])


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
