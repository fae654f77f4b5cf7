"""What every vision-language trunk promises, and the codes that say where a token was seen.

Axes: B batch, C cameras, K = 3 colours, Y rows, X columns, N tokens, W token width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError
from actionprior.files.weights import load_weights


class TrunkTokens(NamedTuple):
    """Image tokens of all cameras, then text tokens."""

    tokens_BNW: Tensor  # (B, N, W)
    mask_BN: Tensor  # bool (B, N), True: attend


class Trunk(nn.Module, ABC):
    """Turns the images of all cameras and an instruction into one sequence of tokens.

    A trunk does its own resizing, normalising and tokenising. It can be built again from plain
    data: ``type(trunk)(**trunk.init_args())`` followed by ``load_state_dict`` needs no file and
    no download, so that a checkpoint of a policy stands alone.

    Attributes:
        width: W, the width of a token.
        lr_scale: learning rate of what came pretrained, relative to the module's; 0: frozen.
        blind: whether images go through random weights that are not trained.
    """

    width: int
    lr_scale: float
    blind: bool = False

    @abstractmethod
    def forward(self, images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> TrunkTokens:
        """Compute the tokens.

        Args:
            images_BCKYX: uint8 (B, C, 3, Y, X), any size.
            camera_mask_BC: bool (B, C), False where a row has no such camera; its tokens are
                masked and its pixels change no other token.
            task: B instructions.
        """

    @abstractmethod
    def init_args(self) -> dict[str, Any]:
        """Plain constructor arguments that build this trunk again, without pretrained weights."""

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """The parameters that train, and the factor on the module's learning rate for each group.

        By default all of them at ``lr_scale``.
        """
        yield [p for p in self.parameters() if p.requires_grad], self.lr_scale

    def merge(self) -> None:
        """Make acting as cheap as can be, once training is over; by default nothing is to do.

        The output stays what it was, and ``init_args()`` and the state dict go together still.
        """


def resize(images_IKYX: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (I, 3, any, any) → float (I, 3, *size) in [0, 1]; the whole view is kept."""
    x = images_IKYX.float() / 255
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def read_weights(module: nn.Module, file: str) -> None:
    """Load a safetensors file into ``module``; every name and shape has to fit.

    Raises:
        UserError: the file is missing, damaged, or of another architecture.
    """
    if not Path(file).is_file():
        raise UserError(f"trunk weights {file} do not exist; make them with `lightning ground`")
    state = load_weights(Path(file))
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        found, wanted = (d[name].shape if name in d else None for d in (state, own))
        if found != wanted:
            raise UserError(
                f"trunk weights {file} are of another architecture: {name} is "
                f"{'missing' if found is None else tuple(found)} there, "
                f"{'unknown' if wanted is None else tuple(wanted)} here"
            )
    module.load_state_dict(state)


def check_inputs(images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> None:
    """Refuse what no trunk can read.

    Raises:
        ValueError: images that are not uint8 (B, C, 3, Y, X), a mask that is not (B, C), or a
            number of instructions other than B.
    """
    if images_BCKYX.dtype != torch.uint8 or images_BCKYX.dim() != 5 or images_BCKYX.shape[2] != 3:
        raise ValueError(
            f"images are {images_BCKYX.dtype} of shape {tuple(images_BCKYX.shape)}, "
            "expected torch.uint8 (batch, cameras, 3, rows, columns)"
        )
    if camera_mask_BC.shape != images_BCKYX.shape[:2]:
        raise ValueError(
            f"camera mask has shape {tuple(camera_mask_BC.shape)}, "
            f"expected (batch, cameras) = {tuple(images_BCKYX.shape[:2])}"
        )
    if len(task) != len(images_BCKYX):
        raise ValueError(f"{len(task)} instructions came with {len(images_BCKYX)} images")


def place_code(cameras: int, rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Fixed sine-cosine code of (camera, row, column), shape (cameras, rows · columns, width).

    A third of the width each; frequencies spaced as in arXiv 1706.03762, Sec. 3.5. Fixed codes
    need no upper bound on the cameras and leave nothing to train in a frozen trunk.
    """
    part = width // 6
    rate = torch.exp(torch.linspace(0.0, -math.log(100.0), part, device=device))

    def code(count: int) -> Tensor:
        angle = torch.arange(count, device=device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    shape = (cameras, rows, columns, 2 * part)
    camera = code(cameras)[:, None, None].expand(shape)
    row = code(rows)[None, :, None].expand(shape)
    column = code(columns)[None, None].expand(shape)
    full = torch.cat([camera, row, column], dim=-1).flatten(1, 2)
    return F.pad(full, (0, width - full.shape[-1]))


def join_tokens(
    image_BCNW: Tensor, camera_mask_BC: Tensor, text_BLW: Tensor, text_mask_BL: Tensor
) -> TrunkTokens:
    """Concatenate image tokens (B, C, N, W) and text tokens (B, L, W) with their masks."""
    image_mask = camera_mask_BC.bool()[:, :, None].expand(image_BCNW.shape[:3]).flatten(1)
    return TrunkTokens(
        tokens_BNW=torch.cat([image_BCNW.flatten(1, 2), text_BLW], dim=1),
        mask_BN=torch.cat([image_mask, text_mask_BL], dim=1),
    )
