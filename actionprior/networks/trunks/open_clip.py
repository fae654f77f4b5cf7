"""A pretrained vision-language trunk: any image and text tower pair of open_clip."""

from typing import Any, cast

from torch import Tensor, nn

from actionprior.networks.trunks.towers import ImageTower, TextTower, clip_parts
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels, TwoTowerTrunk


class OpenClipTrunk(TwoTowerTrunk):
    """Patch and word tokens of any open_clip model, chosen by name and weights."""

    def __init__(
        self,
        model: str = "ViT-B-16",
        pretrained: str = "",
        width: int = 0,
        quick_gelu: bool | None = None,
        tuning: Tuning = Tuning(),
        pixels: Pixels = Pixels(),
    ) -> None:
        """Build the towers.

        Args:
            model: open_clip's name of the architecture.
            pretrained: Source of the weights: one of the model's tags (downloaded), a local file,
                or a model in the hub's layout (``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``).
                Empty gives random weights.
            width: Width of the tokens; 0 takes the image tower's own.
            quick_gelu: Use OpenAI's variant of GELU; None decides by the source of the weights.
            tuning: What trains of the towers, and how fast; by default nothing.
            pixels: Size and normalisation of the images; by default as the weights were trained.

        Raises:
            UserError: Name or tag is unknown, a file does not fit, or a download or the loading
                of the tokeniser failed.
        """
        parts = clip_parts(model, pretrained, quick_gelu, pixels.image_size)
        pixels = Pixels(
            pixels.image_size, list(pixels.mean or parts.mean), list(pixels.std or parts.std)
        )
        size = _image_size(parts.visual)
        super().__init__(
            ImageTower(
                parts.visual, _features, size, *pixels.normalization, freeze=tuning.freezes_image
            ),
            TextTower(parts.text, model, tuning.freezes_text, pretrained),
            width,
            tuning,
            pixels,
            {"model": model, "pretrained": "", "quick_gelu": parts.quick_gelu},
        )
        self.blind = self.image.frozen and not pretrained


def _image_size(tower: nn.Module) -> tuple[int, int]:
    size: int | tuple[int, int] = cast(Any, tower).image_size
    return (size, size) if isinstance(size, int) else size


def _features(tower: nn.Module, x_IKYX: Tensor) -> Tensor:
    # NCHW, because convolutional towers refuse to return a sequence. CoCa's norm is meant for
    # pooled features, so that its maps stay unnormalised.
    output = cast(Any, tower).forward_intermediates(
        x_IKYX,
        indices=1,
        normalize_intermediates=getattr(tower, "attn_pool", None) is None,
        intermediates_only=True,
    )
    return cast(Tensor, output["image_intermediates"][-1])
