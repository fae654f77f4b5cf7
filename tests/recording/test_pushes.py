"""Test when pushes come, how long they last and how large they are."""

import numpy as np

from actionprior.recording.pushes import PUSH_EVERY, PUSH_STEPS, Pushes

SIZE = np.array([1.0, 0.0, 0.5], np.float32)


def test_pushes_last_and_return_as_documented() -> None:
    pushes = Pushes(SIZE, seed=0)
    drawn = [pushes.next() for _ in range(20_000)]
    given = [push for push in drawn if push is not None]
    distinct = {push.tobytes() for push in given}
    # The last one may be cut off.
    assert 0 <= len(distinct) * PUSH_STEPS - len(given) < PUSH_STEPS
    assert abs(len(drawn) / len(distinct) - PUSH_EVERY) < 5
    largest = np.abs(given).max(axis=0)
    assert (largest <= SIZE).all()
    assert (largest >= 0.9 * SIZE).all()


def test_the_seed_decides() -> None:
    first, again, other = (
        [pushes.next() for _ in range(200)]
        for pushes in (Pushes(SIZE, 1), Pushes(SIZE, 1), Pushes(SIZE, 2))
    )
    assert str(first) == str(again)
    assert str(first) != str(other)


def test_no_size_gives_no_pushes() -> None:
    assert all(Pushes(None, 0).next() is None for _ in range(500))
