"""Fold batch normalisations into the convolutions before them, for networks that do not train."""

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Outputs = Callable[[nn.Module], list[Tensor]]
"""Function that computes what a model gives for some input, to compare two models."""


def fold_norms(model: nn.Module, outputs: Outputs) -> nn.Module | None:
    """Return a copy of a model whose batch normalisations are part of the convolutions.

    In evaluation mode a batch normalisation multiplies and adds constants, which weights and bias
    of the convolution before it can hold. The copy reads and writes each feature map once less.

    Args:
        model: Model in evaluation mode.
        outputs: Called with the model and with the copy.

    Returns:
        The copy, without gradients. None if nothing can be folded, or if its outputs differ by
        more than rounding: neighbours in the model need not be neighbours in its computation.
    """
    folded = copy.deepcopy(model).requires_grad_(False)
    pairs = list(_neighbours(folded))
    for conv, parent, name in pairs:
        norm = parent._modules[name]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weights = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *weights)
        # timm's batch normalisation holds the activation that follows it.
        parent._modules[name] = getattr(norm, "act", nn.Identity())
    folded.requires_grad_(False)
    return folded if pairs and _equal(outputs(model), outputs(folded)) else None


def weights_state(model: nn.Module) -> list[tuple[int, int]]:
    """Return what changes whenever weights of a model are moved, loaded or changed in place."""
    tensors = (*model.parameters(), *model.buffers())
    # Tensors made in inference mode cannot change in place outside of it, and count nothing.
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def _neighbours(model: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Module, str]]:
    """Yield each convolution with the parent and the name of the normalisation after it."""
    for parent in model.modules():
        children = list(parent._modules.items())
        for (_, conv), (name, norm) in pairwise(children):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if norm.running_mean is not None and conv.out_channels == norm.num_features:
                yield conv, parent, name


def _equal(wanted: list[Tensor], found: list[Tensor]) -> bool:
    return all(
        bool((a - b).abs().max() <= 1e-3 * a.abs().max())
        for a, b in zip(wanted, found, strict=True)
    )
