"""A policy of random motions, and a mark for tests of optional benchmarks."""

import importlib.util

import pytest
from torch import Tensor

from actionprior.batch import Observation
from actionprior.embodiment import Embodiment


class Jitter:
    """Policy of small random motions around the chunk's reference."""

    chunk_length = 4
    history_length = 2

    def __init__(self, robot: Embodiment) -> None:
        self.embodiments = [robot]
        self.seen: list[Observation] = []

    def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        self.seen.append(observation)
        return observation.reference_BA[:, None] + 0.1 * noise_BHA


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    """Skip a test if the module of an optional extra is not installed."""
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"the extra {extra!r} is not installed")
