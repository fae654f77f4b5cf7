"""The layers of a network that repeat: what is sharded, compiled or recomputed one at a time."""

from collections.abc import Iterator

from torch import nn


def repeated_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of every stack (a list or sequence of one class), outermost stacks only.

    Those of ours, timm's and open_clip's transformers and of most others are such.
    """
    for child in module.children():
        layers = list(child.children())
        stack = isinstance(child, nn.ModuleList | nn.Sequential)
        alike = len({type(layer) for layer in layers}) == 1
        if stack and alike and all(any(True for _ in layer.parameters()) for layer in layers):
            yield from layers
        else:
            yield from repeated_layers(child)
