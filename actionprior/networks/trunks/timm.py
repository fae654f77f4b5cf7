"""Any image model of timm, beside a text tower of open_clip."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from actionprior.errors import UserError, near_matches, shorten
from actionprior.networks.trunks.hub import hub_model, is_hub_source
from actionprior.networks.trunks.towers import (
    ImageTower,
    TextTower,
    clip_parts,
)
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import TwoTowerTrunk

_HUB_CONFIG = "config.json"
_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the latter with weights_only=True


class TimmTrunk(TwoTowerTrunk):
    """The last feature map of a timm model, transformer or CNN alike, and open_clip's words."""

    def __init__(
        self,
        model: str = "vit_small_patch16_224",
        pretrained: str = "",
        text_model: str = "ViT-B-16",
        text_pretrained: str = "",
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
            model: timm's name of the image model.
            pretrained: one of its tags (downloaded), a local file of weights, a model in the hub's
                layout (``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``), or empty.
            text_model: open_clip's name of the model whose text tower is used.
            text_pretrained: likewise, for the text tower.
            freeze_image: train nothing of the image model.
            freeze_text: train nothing of the text tower, and compute each instruction once.
            lr_scale: learning rate of the towers relative to the module's; 0 freezes both.
            width: of the tokens; 0: the image model's own.
            image_size: edge of the images [pixels]; 0: the model's own.
            mean: of the pixels, in [0, 1]; None: as its weights were trained.
            std: likewise.
            quick_gelu: whether the text weights want OpenAI's GELU; None: as the tag says.
            train_image_blocks: train only this many last blocks of an unfrozen image model;
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
                size that the model does not take.
        """
        visual = cast(Any, _image_model(model, pretrained, image_size))
        parts = clip_parts(text_model, text_pretrained, quick_gelu)
        config = visual.pretrained_cfg
        pixels = list(mean or config["mean"]), list(std or config["std"])
        size = (image_size, image_size) if image_size else tuple(config["input_size"][1:])
        frozen = lr_scale == 0
        super().__init__(
            ImageTower(visual, _features, size, *pixels, freeze=freeze_image or frozen),
            TextTower(parts.text, text_model, freeze_text or frozen, text_pretrained),
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
                "text_model": text_model,
                "text_pretrained": "",
                "freeze_image": freeze_image,
                "freeze_text": freeze_text,
                "image_size": size[0],
                "mean": pixels[0],
                "std": pixels[1],
                "quick_gelu": parts.quick_gelu,
            },
        )
        self.blind = self.image.frozen and not pretrained


def _image_model(model: str, pretrained: str, image_size: int) -> nn.Module:
    import timm

    if is_hub_source(model):
        raise UserError(
            f"model is {model!r}; expected timm's name of its architecture, so that a policy "
            "stands alone in its checkpoint; give the source of the weights as pretrained"
        )
    if not timm.is_model(model):
        known = timm.list_models()
        raise UserError(f"timm has no model {model!r}{near_matches(model, known)}")
    try:
        built = cast(Any, timm).create_model(model, num_classes=0, **_source(model, pretrained))
        built.pretrained_cfg.pop("state_dict", None)  # else a copy of the model is another of it
        if image_size and hasattr(built, "set_input_size"):
            built.set_input_size((image_size, image_size))
    except UserError:
        raise
    except Exception as error:  # of many kinds: network, pickle, keys, shapes
        what = f"weights {pretrained!r} of timm model {model}" if pretrained else model
        raise UserError(f"{what} cannot be loaded: {shorten(error)}") from error
    return cast(nn.Module, built)


def _source(model: str, pretrained: str) -> dict[str, Any]:
    """Arguments of ``timm.create_model`` that bring the weights.

    The classifier of a file is left out here. Where timm leaves it out, it also stops to compare
    names, and takes another model's file for this one's without a word.
    """
    import timm

    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if not pretrained or pretrained in tags:
        return {"pretrained": bool(pretrained), "pretrained_cfg": pretrained or None}
    told: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    file = Path(pretrained)
    if is_hub_source(pretrained):
        config, file = hub_model(pretrained, _HUB_CONFIG, _HUB_WEIGHTS)
        if (architecture := config.get("architecture")) != model:
            raise UserError(f"{pretrained} holds a {architecture}, but model is {model!r}")
        own = config.get("pretrained_cfg", config)
        told = {key: own[key] for key in ("input_size", "mean", "std") if key in own}
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
    told |= {"state_dict": state, "classifier": None}
    return {"pretrained": True, "pretrained_cfg_overlay": told, **arguments}


def _features(tower: nn.Module, x_IKYX: Tensor) -> Tensor:
    maps = cast(Any, tower).forward_intermediates(
        x_IKYX, indices=1, norm=True, intermediates_only=True
    )
    return cast(Tensor, maps[-1])
