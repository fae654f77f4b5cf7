import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprior.data.frame_ranges import Spans, Stops


def spans(*pairs: tuple[int, int]) -> Spans:
    start, stop = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Spans(start, stop)


def test_positions_name_frames_in_order() -> None:
    some = spans((2, 5), (7, 7), (9, 11))
    assert len(some) == 5
    assert some.frames().tolist() == [2, 3, 4, 9, 10]
    assert some.frames(np.array([4, 0, 3])).tolist() == [10, 2, 9]


def test_an_empty_set_has_no_frame() -> None:
    assert len(spans()) == 0
    assert spans().frames().tolist() == []
    assert Spans.where(np.zeros(5, dtype=bool)).frames().tolist() == []


def test_a_mask_and_its_spans_name_the_same_frames() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random(50) < 0.6
        some = Spans.where(mask)
        assert some.frames().tolist() == np.nonzero(mask)[0].tolist()
        chosen = rng.random(len(some)) < 0.5
        assert some.keep(chosen).frames().tolist() == some.frames()[chosen].tolist()
        assert some.clip(10, 30).frames().tolist() == [f for f in some.frames() if 10 <= f < 30]


def test_parts_join() -> None:
    whole = spans((1, 4), (6, 9), (20, 22))
    assert Spans.join([whole.clip(0, 7), whole.clip(7, 99)]).frames().tolist() == [
        *whole.frames().tolist()
    ]
    assert len(Spans.join([])) == 0


def test_overlapping_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="must not overlap"):
        spans((0, 5), (4, 8))


@given(
    st.lists(st.sampled_from([0, 1, 2, 9, 250, 40_000]), min_size=1, max_size=60),
    st.integers(0, 2**32 - 1),
)
def test_the_range_of_an_index_is_found(lengths: list[int], seed: int) -> None:
    stop_K = np.cumsum(lengths)
    if stop_K[-1] == 0:
        return
    rng = np.random.default_rng(seed)
    near = np.unique([0, *stop_K, *(stop_K - 1), *(stop_K + 1)])
    index_I = np.concatenate([near, rng.integers(0, stop_K[-1], 50)])
    index_I = index_I[(index_I >= 0) & (index_I < stop_K[-1])]
    expected = np.searchsorted(stop_K, index_I, side="right")
    np.testing.assert_array_equal(Stops(stop_K).find(index_I), expected)


def test_there_may_be_no_range() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert Stops(nothing).find(nothing).tolist() == []
