"""Find a network's repeated layers, which are sharded, compiled or recomputed one at a time."""

from collections.abc import Iterator

from torch import nn


def repeated_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of every outermost stack: a list or sequence of modules of one class.

    The transformers of this package, timm, open_clip and most others are built of such stacks.
    """
    for child in module.children():
        layers = list(child.children())
        stack = isinstance(child, nn.ModuleList | nn.Sequential)
        same = len({type(layer) for layer in layers}) == 1
        if stack and same and all(any(True for _ in layer.parameters()) for layer in layers):
            yield from layers
        else:
            yield from repeated_layers(child)
