"""Soft keypoints of feature maps: where an instruction's things are, and what is there.

Each keypoint is the centre of a spatial softmax over the finest map (arXiv 1504.00702, Sec. 4.2).
FiLM (arXiv 1709.07871) lets the instruction decide what to look for.

Axes: I images, C channels, Y rows, X columns, J keypoints, W text width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError
from actionprior.networks.device import to_device
from actionprior.networks.trunks.base import place_code

_GLANCE = 16  # features of each keypoint that the tokens get
_PERIODS = (2.0, 1.0, 0.5)
COORDINATE_FEATURES = 2 * (1 + 2 * len(_PERIODS))
"""Number of values that :func:`coordinate_features` returns per keypoint."""


class Keypoints(NamedTuple):
    """Places of keypoints in an image, and the features found there."""

    place_IJ2: Tensor  # column and row, from -1 to 1 over the image
    feature_IJC: Tensor


class KeypointReader(nn.Module):
    """Combines feature maps of several strides, and reads soft keypoints from them.

    It has no batch statistics, so that no image changes the keypoints of another.
    """

    def __init__(
        self, map_channels: Sequence[int], channels: int, keypoints: int, text_width: int
    ) -> None:
        """Create the reader.

        Args:
            map_channels: Number of channels of each feature map.
            channels: Number C of channels of the combined map.
            keypoints: Number J of keypoints.
            text_width: Width W of the instruction's features.
        """
        super().__init__()
        self.project = nn.ModuleList([nn.Conv2d(count, channels, 1) for count in map_channels])
        self.film = nn.ModuleList([nn.Linear(text_width, 2 * channels) for _ in range(2)])
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 1)
        # Without a bias, because the softmax over the cells would cancel it.
        self.score = nn.Conv2d(channels, keypoints, 1, bias=False)
        self.log_sharpness_J = nn.Parameter(torch.zeros(keypoints))

    def forward(self, maps: Sequence[Tensor], text_IW: Tensor) -> Keypoints:
        """Read keypoints from feature maps (I, any, Y, X), finest first."""
        x_ICYX = self._combine(maps)
        x_ICYX = F.gelu(self._condition(0, x_ICYX, text_IW))
        x_ICYX = x_ICYX + self.mix(F.gelu(self._condition(1, self.conv(x_ICYX), text_IW)))
        weight_IJYX = self._weights(x_ICYX)
        feature_IJC = weight_IJYX.flatten(2).to(x_ICYX.dtype) @ x_ICYX.flatten(2).mT
        return Keypoints(_centres(weight_IJYX), feature_IJC)

    def _combine(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        projected = [project(m) for project, m in zip(self.project, maps, strict=True)]
        total: Tensor = projected[0]
        for coarse in projected[1:]:
            total = total + F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        return total

    def _condition(self, index: int, x_ICYX: Tensor, text_IW: Tensor) -> Tensor:
        """Normalise each image's map, and let the instruction scale and shift its channels.

        All images are groups of one map here, so that the scale and shift of each are those of the
        normalisation and take no passes over the map of their own.
        """
        scale_IC, shift_IC = self.film[index](text_IW).to(x_ICYX.dtype).chunk(2, dim=1)
        x_1CYX = x_ICYX.flatten(0, 1)[None]
        scale_C, shift_C = (1 + scale_IC).flatten(), shift_IC.flatten()
        return F.group_norm(x_1CYX, max(1, len(x_ICYX)), scale_C, shift_C).view_as(x_ICYX)

    def _weights(self, x_ICYX: Tensor) -> Tensor:
        """Return each cell's weight for each keypoint, (I, J, Y, X), in single precision."""
        score_IJYX = self.score(x_ICYX).float() * self.log_sharpness_J.float().exp()[:, None, None]
        weight_IJN: Tensor = score_IJYX.flatten(2).softmax(dim=-1)
        return weight_IJN.reshape(score_IJYX.shape)


def _centres(weight_IJYX: Tensor) -> Tensor:
    # Sums instead of matrix products, which autocast would round to an eighth of a cell.
    rows, columns = weight_IJYX.shape[2:]
    x = torch.linspace(-1.0, 1.0, columns, device=weight_IJYX.device)
    y = torch.linspace(-1.0, 1.0, rows, device=weight_IJYX.device)
    column_IJ = (weight_IJYX.sum(dim=2) * x).sum(dim=-1)
    row_IJ = (weight_IJYX.sum(dim=3) * y).sum(dim=-1)
    return torch.stack([column_IJ, row_IJ], dim=-1)


class KeypointTokens(nn.Module):
    """Turns all keypoints of a camera into a few tokens.

    Each token depends on the coordinates of all keypoints. One token per keypoint would leave it
    to attention to learn which of them matter, for which it needs many times the steps.

    Attributes:
        slot_NW: Learnt code of each token.
    """

    def __init__(self, channels: int, keypoints: int, tokens: int, width: int) -> None:
        """Create the layers.

        Args:
            channels: Number C of features per keypoint.
            keypoints: Number J of keypoints per camera.
            tokens: Number N of tokens per camera.
            width: Width of the tokens.

        Raises:
            UserError: There would be no keypoint or no token.
        """
        super().__init__()
        if keypoints < 1 or tokens < 1:
            raise UserError(
                f"CompactTrunk: keypoints are {keypoints} and summaries {tokens}, "
                "expected 1 or more of both"
            )
        self.width = width
        self.glance = nn.Linear(channels, _GLANCE)
        self.summarize = nn.Sequential(
            nn.Linear(keypoints * (COORDINATE_FEATURES + _GLANCE), 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, tokens * width),
        )
        self.slot_NW = nn.Parameter(torch.randn(tokens, width) * 0.1)

    def forward(self, found: Keypoints, batch: int, cameras: int) -> Tensor:
        """Return the tokens of B · C images, (I, N, width)."""
        place_IJF = coordinate_features(found.place_IJ2)
        glance_IJF = self.glance(found.feature_IJC)
        all_IF = torch.cat([place_IJF.to(glance_IJF.dtype), glance_IJF], dim=-1).flatten(1)
        summary_INF: Tensor = self.summarize(all_IF).unflatten(1, (-1, self.width))
        return summary_INF + _camera_code(summary_INF, batch, cameras) + self.slot_NW


def _camera_code(tokens_INF: Tensor, batch: int, cameras: int) -> Tensor:
    code_C1F = place_code(cameras, 1, 1, tokens_INF.shape[-1], tokens_INF.device)
    return code_C1F.repeat(batch, 1, 1)


def coordinate_features(place: Tensor) -> Tensor:
    """Return places (..., 2) with their sines and cosines, (..., 14).

    The short periods keep fractions of a pixel readable in half precision.
    """
    period = to_device(torch.tensor(_PERIODS), place.device)
    angle = (2 * math.pi * place[..., None] / period).flatten(-2)
    return torch.cat([place, angle.sin(), angle.cos()], dim=-1)
