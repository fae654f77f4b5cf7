"""A small trunk, built from scratch, that is quick on one CPU core.

Axes: B batch, C cameras, I = B · C images, R roles (target, goal), L words, W token width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError
from actionprior.networks.device import to_device
from actionprior.networks.trunks.base import (
    Trunk,
    TrunkTokens,
    check_inputs,
    join_tokens,
    place_code,
    read_weights,
    resize,
)
from actionprior.networks.trunks.film_cnn import ROLES, STRIDE, FiLMCNN, Seen
from actionprior.networks.trunks.text_cache import TextCache, TextFeatures
from actionprior.networks.trunks.word_encoder import TextEncoder

_PERIODS = (1.0, 0.5, 0.25)
_PLACE_FEATURES = 3 * (1 + 2 * len(_PERIODS))


class SmallTrunk(Trunk):
    """A FiLM-CNN conditioned on a small text encoder that keeps the order of words.

    A camera gives a token for the target and one for the goal, each with the place in metres
    that the image shows it at, then ``grid``² tokens of the feature map; after all cameras come
    the words. ``lightning ground`` warms it up so that these places are right.
    """

    def __init__(
        self,
        width: int = 128,
        image_size: int = 64,
        channels: int = 64,
        text_width: int = 64,
        grid: int = 4,
        weights: str = "",
        freeze: bool = False,
        lr_scale: float = 1.0,
    ) -> None:
        """Create the trunk.

        Args:
            width: W.
            image_size: edge that images are resized to [pixels], a multiple of 8.
            channels: of the CNN, a multiple of 8.
            text_width: of the text encoder, a multiple of 4.
            grid: tokens along each edge of the feature map.
            weights: a safetensors file made by ``lightning ground``; empty: random weights.
            freeze: train nothing of it.
            lr_scale: learning rate relative to the module's; 0 freezes, too.

        Raises:
            UserError: a size that does not fit, or a ``weights`` file that is missing, damaged
                or of another architecture.
        """
        super().__init__()
        if image_size < 16 or image_size % 8:
            raise UserError(f"SmallTrunk: image_size is {image_size}, expected a multiple of 8")
        if not 1 <= grid <= image_size // STRIDE:
            raise UserError(
                f"SmallTrunk: grid is {grid}, expected 1 to {image_size // STRIDE} "
                f"at image_size {image_size}"
            )
        if width < _PLACE_FEATURES + 16:
            raise UserError(
                f"SmallTrunk: width is {width}, expected {_PLACE_FEATURES + 16} or more"
            )
        self.width, self.image_size, self.grid = width, image_size, grid
        self.text = TextEncoder(text_width)
        self.cache = TextCache()
        self.vision = FiLMCNN(channels, text_width)
        self.from_word = nn.Linear(text_width, width)
        self.from_map = nn.Linear(channels, width)
        self.from_object = nn.Linear(channels + 1, width - _PLACE_FEATURES)
        self.role_RW = nn.Parameter(torch.randn(len(ROLES), width) * 0.1)
        if weights:
            read_weights(self, weights)
        self.frozen = freeze or lr_scale == 0
        self.lr_scale = 0.0 if self.frozen else lr_scale
        self.blind = self.frozen and not weights
        self._args = {
            "width": width,
            "image_size": image_size,
            "channels": channels,
            "text_width": text_width,
            "grid": grid,
            "weights": "",
            "freeze": freeze,
            "lr_scale": lr_scale,
        }
        self.requires_grad_(not self.frozen)

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`."""
        return dict(self._args)

    def look(self, images_IKYX: Tensor, text: TextFeatures) -> Seen:
        """uint8 (I, 3, any, any) and the features of I instructions → :class:`Seen`."""
        x_IKYX = resize(images_IKYX, (self.image_size, self.image_size)) * 2 - 1
        seen: Seen = self.vision(x_IKYX, text.tokens_BLW[:, 0])
        return seen

    def read(self, task: list[str]) -> TextFeatures:
        """Features of instructions; position 0 sums up each."""
        features: TextFeatures = self.cache(task, self.text, self.frozen)
        return features

    def forward(self, images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> TrunkTokens:
        """See :class:`Trunk`.

        Raises:
            ValueError: the arguments' shapes do not fit together.
        """
        check_inputs(images_BCKYX, camera_mask_BC, task)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            batch, cameras = images_BCKYX.shape[:2]  # a robot may have no camera
            text = self.read(task)
            seen = self.look(
                images_BCKYX.flatten(0, 1),
                TextFeatures(*(t.repeat_interleave(cameras, dim=0) for t in text)),
            )
            sizes = (batch, cameras)
            image_INW = torch.cat(
                [self._object_tokens(seen, *sizes), self._map_tokens(seen, *sizes)], dim=1
            )
            words_BLW = self.from_word(text.tokens_BLW)
            image_BCNW = image_INW.reshape(batch, cameras, *image_INW.shape[1:])
            return join_tokens(image_BCNW, camera_mask_BC, words_BLW, text.mask_BL)

    def _object_tokens(self, seen: Seen, batch: int, cameras: int) -> Tensor:
        """(I, R, W): place, appearance and certainty of target and goal."""
        weight_IRN = seen.weight_IRN
        appearance_IRC = weight_IRN @ seen.map_ICYX.flatten(2).mT
        certainty_IR1 = weight_IRN.amax(dim=-1, keepdim=True)
        looks = self.from_object(torch.cat([appearance_IRC, certainty_IR1], dim=-1))
        code = place_code(cameras, 1, 1, looks.shape[-1], looks.device)
        looks = looks + code.repeat(batch, 1, 1)
        # Places enter unmixed, so that a millimetre stays readable behind a random projection.
        return torch.cat([place_features(seen.place_IR3), looks], dim=-1) + self.role_RW

    def _map_tokens(self, seen: Seen, batch: int, cameras: int) -> Tensor:
        """(I, grid², W): the feature map, pooled."""
        pooled = F.adaptive_avg_pool2d(seen.map_ICYX, self.grid).flatten(2).mT
        code = place_code(cameras, self.grid, self.grid, self.width, pooled.device)
        tokens_INW: Tensor = self.from_map(pooled) + code.repeat(batch, 1, 1)
        return tokens_INW


def place_features(place: Tensor) -> Tensor:
    """Coordinates (..., 3) [m] as themselves and as sines and cosines, (..., 21)."""
    period = to_device(torch.tensor(_PERIODS), place.device)
    angle = (2 * math.pi * place[..., None] / period).flatten(-2)
    return torch.cat([place / 0.2, angle.sin(), angle.cos()], dim=-1)
