"""The part of a trunk below everything that trains: its features need to be computed only once.

Axes: I images, F features.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actionprior.files.digest import digest


class FrozenPart(NamedTuple):
    """Lower part of a trunk that no training step changes.

    A trunk with a frozen part takes these features in place of the images, as the argument
    ``features_BCF`` of its ``forward``, in single or in half precision.

    Attributes:
        module: Frozen weights. They stay in evaluation mode in training, too.
        features: Function from images, uint8 (I, 3, any, any), to features (I, F).
        width: Number F of features per image.
        settings: Plain data that changes the features, apart from weights and buffers.
        move: Function that moves what the features describe: from features (I, F) and distances
            (I, 2), columns and rows as shares of the image's width and height, to features (I, F).
            None if features cannot be moved.
        crop: Function from one camera's images (I, 3, any, any) and the camera's number in the
            robot's order to the part of them that ``features`` takes. None takes whole images.
    """

    module: nn.Module
    features: Callable[[Tensor], Tensor]
    width: int
    settings: dict[str, Any]
    move: Callable[[Tensor, Tensor], Tensor] | None = None
    crop: Callable[[Tensor, int], Tensor] | None = None

    def identity(self) -> str:
        """Return a hash that changes with the features: of the weights and the settings."""
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        parts: list[Any] = [json.dumps(self.settings | {"width": self.width}, sort_keys=True)]
        for name, tensor in sorted(tensors.items()):
            content = tensor.detach().cpu().contiguous()
            parts.append(f"{name} {content.dtype} {tuple(content.shape)}")
            parts.append(content.flatten().view(torch.uint8).numpy())
        return digest(*parts)
