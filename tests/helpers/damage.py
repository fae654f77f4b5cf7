"""Files as a failing disk leaves them."""

import random
from collections.abc import Iterator


def damaged(whole: bytes, flips: int = 300, cuts: int = 60) -> Iterator[bytes]:
    """The file with one bit flipped, then cut short; the same damages in every run."""
    rng = random.Random(0)
    for _ in range(flips):
        bits = bytearray(whole)
        bits[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        yield bytes(bits)
    for _ in range(cuts):
        yield whole[: rng.randrange(len(whole))]
