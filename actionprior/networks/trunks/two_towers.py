"""Base classes of trunks with pretrained weights, and of those with two towers.

Axes: B batch, C cameras, I = B · C images, Y rows, X columns, N tokens, W token width,
F features.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
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
from actionprior.networks.trunks.frozen_part import FrozenPart
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.lora import merge_lora
from actionprior.networks.trunks.towers import ImageTower, TextTower
from actionprior.networks.trunks.tuning import Tuning, decayed, tune


@dataclass(frozen=True)
class Pixels:
    """Size and normalisation of a trunk's images.

    Attributes:
        image_size: Edge to which images are resized [pixels]; 0 takes the model's own.
        mean: Mean of each colour in [0, 1]; None takes that of the weights' training.
        std: Standard deviation of each colour; None takes that of the weights' training.
    """

    image_size: int = 0
    mean: list[float] | None = None
    std: list[float] | None = None

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation, once both are known."""
        assert self.mean is not None
        assert self.std is not None
        return self.mean, self.std


class TunedTrunk(Trunk):
    """Trunk of pretrained weights; members of ``tuning`` and ``pixels`` are recorded one by one."""

    @classmethod
    def constructor_args(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Trunk`; collects the members of ``tuning`` and ``pixels``."""
        arguments = dict(recorded)
        for group, kind in (("tuning", Tuning), ("pixels", Pixels)):
            names = [field.name for field in fields(kind) if field.name in arguments]
            arguments[group] = kind(**{name: arguments.pop(name) for name in names})
        return arguments

    @classmethod
    def args_for_checkpoint(
        cls, arguments: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See :class:`Trunk`; pixels that the weights' source decided come from the checkpoint."""
        changed = super().args_for_checkpoint(arguments, recorded)
        pixels = dict(changed.get("pixels") or {})
        pixels |= {name: recorded[name] for name in ("mean", "std") if name in recorded}
        pixels["image_size"] = pixels.get("image_size") or recorded.get("image_size", 0)
        return changed | {"pixels": pixels}


class TwoTowerTrunk(TunedTrunk):
    """Patch tokens of every camera with codes of their places, then word tokens.

    Both kinds of tokens are layer-normalised without parameters, because the scales of towers
    differ. A tower of another width than the trunk's gets a projection, which always trains.
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
        tuning: Tuning,
        pixels: Pixels,
        source_args: dict[str, Any],
    ) -> None:
        """Join the towers.

        Args:
            image: Image tower.
            text: Text tower.
            width: Width of the tokens; 0 takes the image tower's own.
            tuning: What trains of the towers, and how fast.
            pixels: Size and normalisation of the images, as found in the weights' source.
            source_args: Further arguments that rebuild this trunk without pretrained weights.

        Raises:
            UserError: ``tuning`` does not fit the towers.
        """
        super().__init__()
        self.width = width or image.width
        self.image, self.text = image, text
        self.lr_scale = 0.0 if image.frozen and text.frozen else tuning.lr_scale
        self.from_image = self._projection(image.width)
        self.from_text = self._projection(text.width)
        self._tuning, self._pixels, self._source_args = tuning, pixels, source_args
        tune({name: tower.tower for name, tower in self._training_towers().items()}, tuning)
        self.train()  # Lightning keeps each submodule in the mode that it finds

    def instruction_signs(self, task: list[str]) -> list[InstructionSigns]:
        """See :class:`Trunk`."""
        return self.text.signs(task)

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`; the members of ``tuning`` and ``pixels`` are recorded one by one."""
        groups = asdict(self._tuning) | asdict(self._pixels)
        return self._source_args | {"width": self.width} | groups

    def _training_towers(self) -> dict[str, ImageTower | TextTower]:
        towers: dict[str, ImageTower | TextTower] = {"image": self.image, "text": self.text}
        return {name: tower for name, tower in towers.items() if not tower.frozen}

    def _projection(self, width: int) -> nn.Module:
        return nn.Identity() if width == self.width else nn.Linear(width, self.width)

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Yield the towers at ``lr_scale``, or per layer if it decays; projections at full rate."""
        towers = [*self.image.parameters(), *self.text.parameters()]
        if self._tuning.layer_decay == 1:
            yield [p for p in towers if p.requires_grad], self.lr_scale
        else:
            for name, tower in self._training_towers().items():
                for parameters, factor in decayed(tower.tower, name, self._tuning.layer_decay):
                    yield parameters, self.lr_scale * factor
        known = {id(p) for p in towers}
        yield [p for p in self.parameters() if id(p) not in known and p.requires_grad], 1.0

    def merge(self) -> None:
        """Fold low-rank updates into the weights, and freeze the towers that had them.

        The result is a frozen trunk of plain layers. Nothing is added at run time, and each
        instruction is encoded only once.
        """
        if not self._tuning.lora_rank:
            return
        for tower in self._training_towers().values():
            merge_lora(tower)
            tower.requires_grad_(False)
            tower.frozen = True
        self._tuning = Tuning(lr_scale=self._tuning.lr_scale)
        self.lr_scale = 0.0
        self.train(self.training)

    def frozen_part(self) -> FrozenPart | None:
        """Return the image tower with the norm of its tokens, if nothing of the tower trains."""
        if not self.image.frozen:
            return None
        names = self._source_args.keys() & {"model", "quick_gelu"}
        settings = {name: self._source_args[name] for name in names}
        return FrozenPart(
            self.image,
            lambda images_IKYX: self._patches(images_IKYX).flatten(1),
            math.prod(self.image.map_size),
            settings | {"size": list(self.image.size)},
        )

    def _patches(self, images_IKYX: Tensor) -> Tensor:
        """Compute normalised tokens (I, N, width of the image tower)."""
        map_ICYX: Tensor = self.image(images_IKYX)
        return _normalized(map_ICYX.flatten(2).mT)

    def forward(
        self,
        images_BCKYX: Tensor,
        camera_mask_BC: Tensor,
        task: list[str],
        features_BCF: Tensor | None = None,
    ) -> TrunkTokens:
        """See :class:`Trunk`.

        Raises:
            ValueError: The shapes of the arguments do not fit together.
        """
        check_inputs(images_BCKYX, camera_mask_BC, task)
        batch, cameras = images_BCKYX.shape[:2]  # 0 cameras for a robot without one
        rows, columns = self.image.map_size[1:]
        if features_BCF is None:
            patch_INW = self._patches(images_BCKYX.flatten(0, 1))
        else:
            patch_INW = features_BCF.to(self.image.mean_K11.dtype).flatten(0, 1)
            patch_INW = patch_INW.reshape(-1, rows * columns, self.image.width)
        image_INW = self.from_image(patch_INW)
        code_CNW = place_code(cameras, rows, columns, self.width, image_INW.device)
        image_BCNW = image_INW.reshape(batch, cameras, *image_INW.shape[1:]) + code_CNW
        words = self.text(task)
        text_BLW = self.from_text(_normalized(words.tokens_BLW))
        return join_tokens(image_BCNW, camera_mask_BC, text_BLW, words.mask_BL)


def _normalized(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])
