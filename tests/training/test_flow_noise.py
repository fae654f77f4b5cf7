"""Noise that depends on the seed and the step only."""

import pytest
import torch
from torch import nn

from actionprior.training.flow_noise import FlowNoise

LIKE, CPU = torch.zeros(()), torch.device("cpu")


def draws(*key: int) -> list[torch.Tensor]:
    noise, layer = FlowNoise(*key), nn.Dropout(0.5)
    with noise.for_layers(layer, CPU):
        dropped = layer(torch.ones(64))
    return [
        noise.normal(8, like=LIKE),
        noise.integers(64, 5, like=LIKE),
        noise.time(8, "uniform", like=LIKE),
        dropped,
    ]


def test_a_step_draws_the_same_again_and_others_draw_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    first = draws(7, 0, 0)
    torch.rand(5)  # what else draws from the global generator does not matter
    assert all(map(torch.equal, first, draws(7, 0, 0)))
    for other in ((8, 0, 0), (7, 1, 0), (7, 0, 1)):
        assert not any(map(torch.equal, first, draws(*other)))
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert not any(map(torch.equal, first, draws(7, 0, 0)))


def test_layers_leave_the_global_generator_as_it_was() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draws(1)
    assert torch.equal(torch.rand(3), expected)
