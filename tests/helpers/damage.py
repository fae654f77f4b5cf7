"""Damaged copies of files, as a failing disk leaves them."""

import random
from collections.abc import Iterator


def damaged(whole: bytes, flips: int = 300, cuts: int = 60) -> Iterator[bytes]:
    """Yield copies with one bit flipped, then truncated ones; the same in every run."""
    rng = random.Random(0)
    for _ in range(flips):
        bits = bytearray(whole)
        bits[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        yield bytes(bits)
    for _ in range(cuts):
        yield whole[: rng.randrange(len(whole))]
