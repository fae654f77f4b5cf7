"""The size at which a policy sees its cameras, and the one way in which images get there.

Training, caches, rollouts, ``actionprior.Policy``, the server, LeRobot's tools and ONNX graphs all
bring images to a policy's size here. A policy therefore sees the same pixels in all of them.

Axes: N images, K = 3 colours, Y rows, X columns.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from actionprior.errors import UserError

Fit = Literal["stretch", "pad", "crop"]
MOST_PIXELS = 8192
"""Largest number of rows or columns, which limits memory for any description of a policy."""


@dataclass(frozen=True)
class ImageShape:
    """Rows and columns of a policy's images, and how images of another shape are brought to it.

    Attributes:
        rows: Number of rows [pixels].
        columns: Number of columns [pixels].
        fit: ``stretch`` changes the aspect ratio. ``pad`` keeps it, with black edges. ``crop``
            keeps it, without the edges that do not fit.

    Raises:
        UserError: A number or the fit is out of range.
    """

    rows: int
    columns: int
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("columns", self.columns)):
            if type(value) is not int or not 1 <= value <= MOST_PIXELS:
                raise UserError(
                    f"the images' number of {name} is {value!r}, expected 1 to {MOST_PIXELS}"
                )
        if self.fit not in get_args(Fit):
            raise UserError(f"fit is {self.fit!r}, expected one of {', '.join(get_args(Fit))}")

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} ({self.fit})"

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def apply(self, images_NKYX: Tensor) -> Tensor:
        """Bring images of any size, uint8 (N, 3, any, any), to uint8 (N, 3, rows, columns).

        Images on the CPU are resized in whole numbers, so every machine gets the same pixels.
        """
        rows, columns = found = images_NKYX.shape[-2:]
        if found == self.size:
            return images_NKYX
        if self.fit == "crop":
            kept_rows = min(rows, max(1, round(columns * self.rows / self.columns)))
            kept_columns = min(columns, max(1, round(rows * self.columns / self.rows)))
            top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
            images_NKYX = images_NKYX[..., top : top + kept_rows, left : left + kept_columns]
        if self.fit != "pad":
            return _resize(images_NKYX, self.size)
        scale = min(self.rows / rows, self.columns / columns)
        inner = max(1, round(rows * scale)), max(1, round(columns * scale))
        below, right = self.rows - inner[0], self.columns - inner[1]
        top, left = below // 2, right // 2
        resized = _resize(images_NKYX, inner)
        return F.pad(resized, (left, right - left, top, below - top))

    def apply_to_array(self, image_YXK: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bring one image, uint8 (any, any, 3), to uint8 (rows, columns, 3)."""
        if image_YXK.shape[:2] == self.size:
            return image_YXK
        images_NKYX = torch.from_numpy(np.array(image_YXK)).permute(2, 0, 1)[None]
        fitted: npt.NDArray[np.uint8] = self.apply(images_NKYX)[0].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(fitted)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data, for checkpoints."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any] | None) -> Self | None:
        """Build a shape from plain data; None if there are none, as in files of version 0.1.0.

        Raises:
            UserError: A value is out of range.
        """
        return None if plain is None else cls(plain["rows"], plain["columns"], plain["fit"])


def _resize(images_NKYX: Tensor, size: tuple[int, int]) -> Tensor:
    # PyTorch 2.11 cannot do this in whole numbers on GPUs, and does it wrongly for one column.
    # Decimal numbers differ by one of 256 levels at most.
    if images_NKYX.is_cuda or size[1] == 1:
        resized = F.interpolate(images_NKYX.float(), size, mode="bilinear", antialias=True)
        return resized.round().clamp(0, 255).to(torch.uint8)
    return F.interpolate(images_NKYX, size, mode="bilinear", antialias=True)
