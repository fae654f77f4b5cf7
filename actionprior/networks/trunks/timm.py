"""A trunk of any timm image model and an open_clip text tower."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from actionprior.errors import UserError, near_matches, shorten
from actionprior.networks.trunks.hub import hub_model, is_hub_source
from actionprior.networks.trunks.towers import ImageTower, TextTower, clip_parts
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels, TwoTowerTrunk

_HUB_CONFIG = "config.json"
_HUB_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",  # read with weights_only=True
)


class TimmTrunk(TwoTowerTrunk):
    """The last feature map of any timm model, and word tokens of an open_clip text tower."""

    def __init__(
        self,
        model: str = "vit_small_patch16_224",
        pretrained: str = "",
        text_model: str = "ViT-B-16",
        text_pretrained: str = "",
        width: int = 0,
        quick_gelu: bool | None = None,
        tuning: Tuning = Tuning(),
        pixels: Pixels = Pixels(),
    ) -> None:
        """Build the towers.

        Args:
            model: timm's name of the image model, a transformer or a CNN.
            pretrained: Source of the image model's weights: one of its tags (downloaded), a local
                file, or a model in the hub's layout (``local-dir:FOLDER`` or
                ``hf-hub:OWNER/NAME``). Empty gives random weights.
            text_model: open_clip's name of the model whose text tower is used.
            text_pretrained: Source of the text tower's weights, in the same forms as
                ``pretrained``.
            width: Width of the tokens; 0 takes the image model's own.
            quick_gelu: Use OpenAI's variant of GELU in the text tower; None decides by the source
                of its weights.
            tuning: What trains of the towers, and how fast; by default nothing.
            pixels: Size and normalisation of the images; by default as the weights were trained.

        Raises:
            UserError: Name or tag is unknown, a file does not fit, a download failed, or the
                model does not take images of this size.
        """
        visual = cast(Any, image_model(model, pretrained, pixels.image_size))
        parts = clip_parts(text_model, text_pretrained, quick_gelu)
        config = visual.pretrained_cfg
        edge = pixels.image_size
        size = (edge, edge) if edge else tuple(config["input_size"][1:])
        pixels = Pixels(
            size[0], list(pixels.mean or config["mean"]), list(pixels.std or config["std"])
        )
        super().__init__(
            ImageTower(visual, _features, size, *pixels.normalization, freeze=tuning.freezes_image),
            TextTower(parts.text, text_model, tuning.freezes_text, text_pretrained),
            width,
            tuning,
            pixels,
            {
                "model": model,
                "pretrained": "",
                "text_model": text_model,
                "text_pretrained": "",
                "quick_gelu": parts.quick_gelu,
            },
        )
        self.blind = self.image.frozen and not pretrained


def image_model(model: str, pretrained: str, image_size: int) -> nn.Module:
    """Build a timm model without its classifier.

    Args:
        model: timm's name of the model.
        pretrained: Source of its weights, see :class:`TimmTrunk`; empty gives random weights.
        image_size: Edge of the images [pixels]; 0 keeps the model's own.

    Raises:
        UserError: Name or tag is unknown, a file does not fit, or a download failed.
    """
    import timm

    if is_hub_source(model):
        raise UserError(
            f"model is {model!r}; expected timm's name of its architecture, so that a policy's "
            "checkpoint needs no other file; give the source of the weights as pretrained"
        )
    if not timm.is_model(model):
        known = timm.list_models()
        raise UserError(f"timm has no model {model!r}{near_matches(model, known)}")
    try:
        built = cast(Any, timm).create_model(model, num_classes=0, **_source(model, pretrained))
        built.pretrained_cfg.pop("state_dict", None)  # copies of the model would copy it, too
        if image_size and hasattr(built, "set_input_size"):
            built.set_input_size((image_size, image_size))
    except UserError:
        raise
    except Exception as error:  # network, pickle, keys, shapes: timm raises many kinds
        what = f"weights {pretrained!r} of timm model {model}" if pretrained else model
        raise UserError(f"{what} cannot be loaded: {shorten(error)}") from error
    return cast(nn.Module, built)


def _source(model: str, pretrained: str) -> dict[str, Any]:
    """Return the arguments of ``timm.create_model`` that load the weights.

    The classifier of a file is dropped here. If timm drops it, timm no longer compares names and
    accepts the file of another model silently.
    """
    import timm

    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if not pretrained or pretrained in tags:
        return {"pretrained": bool(pretrained), "pretrained_cfg": pretrained or None}
    overlay: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    file = Path(pretrained)
    if is_hub_source(pretrained):
        config, file = hub_model(pretrained, _HUB_CONFIG, _HUB_WEIGHTS)
        if (architecture := config.get("architecture")) != model:
            raise UserError(f"{pretrained} holds a {architecture}, but model is {model!r}")
        own = config.get("pretrained_cfg", config)
        overlay = {key: own[key] for key in ("input_size", "mean", "std") if key in own}
        arguments = {"img_size": config.get("model_args", {}).get("img_size")}
    elif not file.is_file():
        raise UserError(
            f"timm has no weights {pretrained!r} for {model}, and no such file exists"
            f"{near_matches(pretrained, tags)}"
        )
    heads = getattr(timm.get_pretrained_cfg(model), "classifier", None) or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    state = {
        name: value
        for name, value in timm.models.load_state_dict(str(file)).items()
        if name.rpartition(".")[0] not in heads
    }
    overlay |= {"state_dict": state, "classifier": None}
    return {"pretrained": True, "pretrained_cfg_overlay": overlay, **arguments}


def _features(tower: nn.Module, x_IKYX: Tensor) -> Tensor:
    maps = cast(Any, tower).forward_intermediates(
        x_IKYX, indices=1, norm=True, intermediates_only=True
    )
    return cast(Tensor, maps[-1])
