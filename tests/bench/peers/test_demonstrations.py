"""Instructions become vectors of pairs of words."""

import numpy as np
import pytest

from actionprior.errors import UserError
from bench.peers.demonstrations import InstructionVectors


def test_pairs_keep_apart_which_thing_is_red() -> None:
    read = InstructionVectors(["push the red cube to the blue pad", "push the blue cube"])
    first, second = read(["push the red cube to the blue pad", "push the blue cube to the red pad"])
    assert len(read) == len(first)
    assert first.sum() == 8
    assert not np.array_equal(first, second)
    with pytest.raises(UserError, match="no words of the instruction 'lift it' are in the demo"):
        read(["lift it"])
