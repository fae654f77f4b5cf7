"""What trunks of one image tower and one text tower share.

Axes: B batch, C cameras, I = B · C images, Y rows, X columns, N tokens, W token width.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.networks.trunks.base import (
    Trunk,
    TrunkTokens,
    check_inputs,
    join_tokens,
    place_code,
)
from actionprior.networks.trunks.lora import merge_lora
from actionprior.networks.trunks.towers import ImageTower, TextTower
from actionprior.networks.trunks.tuning import Tuning, decayed, tune


class TwoTowerTrunk(Trunk):
    """Patch tokens of every camera, each with a code of its place, then word tokens.

    Both kinds are layer-normalised without parameters, so that towers of any scale meet alike,
    and projected to one width where the towers' differ; the projections always train.
    """

    training_args = Trunk.training_args | {
        "freeze_image",
        "freeze_text",
        "layer_decay",
        "train_image_blocks",
        "train_text_blocks",
    }
    pretrained_args = Trunk.pretrained_args | {"text_pretrained", "mean", "std", "quick_gelu"}

    def __init__(
        self,
        image: ImageTower,
        text: TextTower,
        width: int,
        lr_scale: float,
        tuning: Tuning,
        init_args: dict[str, Any],
    ) -> None:
        """Join the towers.

        Args:
            image: the image tower.
            text: the text tower.
            width: W; 0: the image tower's own.
            lr_scale: learning rate of what of the towers trains, relative to the module's.
            tuning: what of them trains, where they are not frozen.
            init_args: what else builds this trunk again, without pretrained weights.

        Raises:
            UserError: ``tuning`` does not fit the towers.
        """
        super().__init__()
        self.width = width or image.width
        self.image, self.text = image, text
        self.lr_scale = 0.0 if image.frozen and text.frozen else lr_scale
        self.from_image = self._projection(image.width)
        self.from_text = self._projection(text.width)
        self._layer_decay = tuning.layer_decay
        args = {"width": self.width, "lr_scale": lr_scale}
        self._args = init_args | args | tuning._asdict()
        tune({name: tower.tower for name, tower in self._training_towers().items()}, tuning)
        self.train()  # Lightning keeps each part's mode as it finds it

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`."""
        return dict(self._args)

    @classmethod
    def args_for_checkpoint(
        cls, arguments: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See :class:`Trunk`; an image size of 0 stands for the size that the weights' source has.

        A checkpoint records this size, so that the source is not needed again.
        """
        changed = super().args_for_checkpoint(arguments, recorded)
        if changed.get("image_size") == 0:
            changed["image_size"] = recorded.get("image_size", 0)
        return changed

    def _training_towers(self) -> dict[str, ImageTower | TextTower]:
        towers: dict[str, ImageTower | TextTower] = {"image": self.image, "text": self.text}
        return {name: tower for name, tower in towers.items() if not tower.frozen}

    def _projection(self, width: int) -> nn.Module:
        return nn.Identity() if width == self.width else nn.Linear(width, self.width)

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """The towers at ``lr_scale``, by layers if it decays; the projections at full rate."""
        towers = [*self.image.parameters(), *self.text.parameters()]
        if self._layer_decay == 1:
            yield [p for p in towers if p.requires_grad], self.lr_scale
        else:
            for name, tower in self._training_towers().items():
                for parameters, factor in decayed(tower.tower, name, self._layer_decay):
                    yield parameters, self.lr_scale * factor
        known = {id(p) for p in towers}
        yield [p for p in self.parameters() if id(p) not in known and p.requires_grad], 1.0

    def merge(self) -> None:
        """Fold low-rank updates into the weights, and freeze the towers that had them.

        From then on it is a frozen trunk of plain layers: nothing is added at run time, and the
        features of instructions are kept.
        """
        if not self._args["lora_rank"]:
            return
        for tower in self._training_towers().values():
            merge_lora(tower)
            tower.requires_grad_(False)
            tower.frozen = True
        self.lr_scale, self._layer_decay = 0.0, 1.0
        frozen = {"freeze_image": True, "freeze_text": True}
        self._args |= frozen | Tuning()._asdict()
        self.train(self.training)

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
