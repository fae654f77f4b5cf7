"""What trunks of one image tower and one text tower share.

Axes: B batch, C cameras, I = B · C images, Y rows, X columns, N tokens, W token width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.networks.trunks.base import (
    Trunk,
    TrunkTokens,
    check_inputs,
    join_tokens,
    place_code,
)
from actionprior.networks.trunks.towers import ImageTower, TextTower


class TwoTowerTrunk(Trunk):
    """Patch tokens of every camera, each with a code of its place, then word tokens.

    Both kinds are layer-normalised without parameters, so that towers of any scale meet alike,
    and projected to one width where the towers' differ; the projections always train.
    """

    def __init__(self, image: ImageTower, text: TextTower, width: int, lr_scale: float) -> None:
        """Join the towers.

        Args:
            image: the image tower.
            text: the text tower.
            width: W; 0: the image tower's own.
            lr_scale: learning rate of what of the towers trains, relative to the module's.
        """
        super().__init__()
        self.width = width or image.width
        self.image, self.text = image, text
        self.lr_scale = 0.0 if image.frozen and text.frozen else lr_scale
        self.from_image = self._projection(image.width)
        self.from_text = self._projection(text.width)

    def _projection(self, width: int) -> nn.Module:
        return nn.Identity() if width == self.width else nn.Linear(width, self.width)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The towers' parameters that train; the projections train at the module's rate."""
        towers = [*self.image.parameters(), *self.text.parameters()]
        return [p for p in towers if p.requires_grad]

    def forward(self, images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> TrunkTokens:
        """See :class:`Trunk`.

        Raises:
            ValueError: the arguments' shapes do not fit together.
        """
        check_inputs(images_BCKYX, camera_mask_BC, task)
        batch, cameras = images_BCKYX.shape[:2]  # a robot may have no camera
        map_ICYX = self.image(images_BCKYX.flatten(0, 1))
        rows, columns = map_ICYX.shape[2:]
        image_INW = self.from_image(_normalized(map_ICYX.flatten(2).mT))
        code_CNW = place_code(cameras, rows, columns, self.width, image_INW.device)
        image_BCNW = image_INW.reshape(batch, cameras, *image_INW.shape[1:]) + code_CNW
        words = self.text(task)
        text_BLW = self.from_text(_normalized(words.tokens_BLW))
        return join_tokens(image_BCNW, camera_mask_BC, text_BLW, words.mask_BL)


def _normalized(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])
