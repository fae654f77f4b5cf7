"""Repeated layers of a network are found."""

from torch import nn

from actionprior.training.layers import repeated_layers


def test_the_layers_are_those_of_the_outermost_stacks() -> None:
    inner = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    stack = nn.Sequential(nn.ModuleDict({"list": inner}), nn.ModuleDict({"one": nn.Linear(2, 2)}))
    mixed = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    whole = nn.ModuleDict({"stack": stack, "mixed": mixed, "empty": nn.ModuleList()})
    assert list(repeated_layers(whole)) == list(stack)
