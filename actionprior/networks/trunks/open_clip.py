"""A pretrained vision-language trunk: any image and text tower pair of open_clip."""

from typing import Any, cast

from torch import Tensor, nn

from actionprior.networks.trunks.towers import ImageTower, TextTower, clip_parts
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import TwoTowerTrunk


class OpenClipTrunk(TwoTowerTrunk):
    """Patch and word tokens of an open_clip model, by name and weights."""

    def __init__(
        self,
        model: str = "ViT-B-16",
        pretrained: str = "",
        freeze_image: bool = True,
        freeze_text: bool = True,
        lr_scale: float = 0.1,
        width: int = 0,
        image_size: int = 0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        quick_gelu: bool | None = None,
        train_image_blocks: int = 0,
        train_text_blocks: int = 0,
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        lora_targets: list[str] | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        """Build the towers.

        Args:
            model: open_clip's name of the architecture.
            pretrained: one of its tags (downloaded), a local file of weights, a model in the hub's
                layout (``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``), or empty.
            freeze_image: train nothing of the image tower.
            freeze_text: train nothing of the text tower, and compute each instruction once.
            lr_scale: learning rate of the towers relative to the module's; 0 freezes both.
            width: of the tokens; 0: the image tower's own.
            image_size: edge of the images [pixels]; 0: the model's own.
            mean: of the pixels, in [0, 1]; None: as its weights were trained.
            std: likewise.
            quick_gelu: whether the weights want OpenAI's GELU; None: as the tag says.
            train_image_blocks: train only this many last blocks of an unfrozen image tower;
                0: all of it.
            train_text_blocks: likewise, of the text tower.
            lora_rank: of low-rank updates (LoRA) that train in the place of the weights of
                unfrozen towers, in the blocks that train; 0: the weights themselves train.
            lora_alpha: size of the updates: they are multiplied by ``lora_alpha / lora_rank``.
            lora_targets: names of the layers that are updated, or the ends of their names, e.g.
                ``qkv`` or ``mlp.fc1``; None: every linear layer and 1×1 convolution.
            layer_decay: the learning rate of a block is that of the next one times this.

        Raises:
            UserError: an unknown name or tag, a file that does not fit, a failed download, or a
                tokeniser that cannot be loaded.
        """
        parts = clip_parts(model, pretrained, quick_gelu, image_size)
        pixels = list(mean or parts.mean), list(std or parts.std)
        frozen = lr_scale == 0
        super().__init__(
            ImageTower(
                parts.visual,
                _features,
                _size(parts.visual),
                *pixels,
                freeze=freeze_image or frozen,
            ),
            TextTower(parts.text, model, freeze_text or frozen, pretrained),
            width,
            lr_scale,
            Tuning(
                train_image_blocks,
                train_text_blocks,
                lora_rank,
                lora_alpha,
                lora_targets,
                layer_decay,
            ),
            {
                "model": model,
                "pretrained": "",
                "freeze_image": freeze_image,
                "freeze_text": freeze_text,
                "image_size": image_size,
                "mean": pixels[0],
                "std": pixels[1],
                "quick_gelu": parts.quick_gelu,
            },
        )
        self.blind = self.image.frozen and not pretrained


def _size(tower: nn.Module) -> tuple[int, int]:
    size: int | tuple[int, int] = cast(Any, tower).image_size
    return (size, size) if isinstance(size, int) else size


def _features(tower: nn.Module, x_IKYX: Tensor) -> Tensor:
    # NCHW: convolutional towers refuse to give a sequence. CoCa's norm is one of pooled features.
    output = cast(Any, tower).forward_intermediates(
        x_IKYX,
        indices=1,
        normalize_intermediates=getattr(tower, "attn_pool", None) is None,
        intermediates_only=True,
    )
    return cast(Tensor, output["image_intermediates"][-1])
