"""What differs between families of vision-language models in transformers.

All images of a batch have one size here. The families' own code treats each image separately, with
Python loops, many small kernels and waits for the GPU. Their modules are given subclasses that
compute the same for all images together. Names of weights stay.

Axes: I images, K = 3 colours, Y rows, X columns, N tokens, L tokens of a sequence, D further
features of an image token, W width of the language model, A axes of positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.networks.trunks.vlm.prompt import Prompt


@dataclass(frozen=True)
class Family:
    """How models of a family take images and text; the defaults fit most of them.

    Attributes:
        prepare: Function that gives the model's modules their faster subclasses.
        see: Function of the model and normalised pixels (I, 3, Y, X) that returns tokens
            (I, N, (1 + D)·W).
        read: Function of the model, a sequence (B, L, (1 + D)·W), which tokens attend to which
            (B, L, L), and positions (B, L, A). It returns the last hidden states (B, L, W).
        around_image: Text before and after each image, in addition to the chat template's.
        default_prompt: Prompt of models without a chat template.
        two_way: True if images and instruction attend to each other in both directions.
        further: Number D of further features of an image token, as a function of the model.
        grid: Function of the model and the image size that returns the rows and columns of tokens
            whose positions have three axes; None: all tokens stand in one line.
        image_size: Edge of the images [pixels] as a function of the model.
    """

    prepare: Callable[[Any], None]
    see: Callable[[Any, Tensor], Tensor]
    read: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
    around_image: tuple[str, str] = ("", "")
    default_prompt: Prompt = field(default_factory=Prompt)
    two_way: bool = False
    further: Callable[[Any], int] = lambda model: 0
    grid: Callable[[Any, int], tuple[int, int]] | None = None
    image_size: Callable[[Any], int] = lambda model: int(model.config.vision_config.image_size)


def family_of(model_type: str) -> Family:
    """Return the family of a model type of transformers."""
    return _FAMILIES.get(model_type, _OTHERS)


# ---- most models ------------------------------------------------------------------------------


def _see(model: Any, pixels_IKYX: Tensor) -> Tensor:  # noqa: ANN401  a model of transformers
    output = model.get_image_features(pixel_values=pixels_IKYX)
    tokens_INW: Tensor = getattr(output, "pooler_output", output)
    return tokens_INW


def _read(model: Any, x_BLW: Tensor, mask_BLL: Tensor, place_BLA: Tensor) -> Tensor:  # noqa: ANN401  transformers has no types
    output = model.get_decoder()(
        inputs_embeds=x_BLW,
        attention_mask=mask_BLL[:, None],
        position_ids=place_BLA[..., 0],
        use_cache=False,
    )
    hidden_BLW: Tensor = output.last_hidden_state
    return hidden_BLW


_OTHERS = Family(lambda model: None, _see, _read)
_PALIGEMMA = replace(_OTHERS, default_prompt=Prompt(before_task="<bos>", end="\n"), two_way=True)


# ---- SmolVLM and Idefics 3 --------------------------------------------------------------------


def _prepare_smolvlm(model: Any) -> None:  # noqa: ANN401  transformers has no types
    from actionprior.networks.trunks.vlm.equal_images import EqualSmolVLMVision

    model.vision_model.__class__ = EqualSmolVLMVision


def _see_smolvlm(model: Any, pixels_IKYX: Tensor) -> Tensor:  # noqa: ANN401  transformers has no types
    tokens_INW: Tensor = model.connector(model.vision_model(pixels_IKYX).last_hidden_state)
    return tokens_INW


_SMOLVLM = replace(
    _OTHERS,
    prepare=_prepare_smolvlm,
    see=_see_smolvlm,
    around_image=("<fake_token_around_image><global-img>", "<fake_token_around_image>"),
)


# ---- Qwen3-VL ---------------------------------------------------------------------------------


def _prepare_qwen(model: Any) -> None:  # noqa: ANN401  transformers has no types
    from actionprior.networks.trunks.vlm.equal_images import (
        EqualQwenAttention,
        EqualQwenVision,
        add_everywhere,
    )

    model.visual.__class__ = EqualQwenVision
    for block in model.visual.blocks:
        block.attn.__class__ = EqualQwenAttention
    model.language_model._deepstack_process = add_everywhere


def _see_qwen(model: Any, pixels_IKYX: Tensor) -> Tensor:  # noqa: ANN401  transformers has no types
    config = model.visual.config
    merge, edge, frames = config.spatial_merge_size, config.patch_size, config.temporal_patch_size
    images, colours, height, width = pixels_IKYX.shape
    rows, columns = height // edge, width // edge
    # Patches stand in squares that are merged to one token, and an image is a film of equal frames.
    cut = pixels_IKYX.reshape(
        images, colours, rows // merge, merge, edge, columns // merge, merge, edge
    ).permute(0, 2, 5, 3, 6, 1, 4, 7)
    patches = cut.flatten(0, 4)[:, :, None].expand(-1, -1, frames, -1, -1).flatten(1)
    grid = torch.tensor([[1, rows, columns]]).expand(images, 3)  # stays on the CPU
    output = model.visual(patches, grid_thw=grid, return_dict=True)
    parts = [output.pooler_output, *output.deepstack_features]
    return torch.cat([part.view(images, -1, part.shape[-1]) for part in parts], dim=-1)


def _read_qwen(model: Any, x_BLW: Tensor, mask_BLL: Tensor, place_BLA: Tensor) -> Tensor:  # noqa: ANN401  transformers has no types
    width = model.config.text_config.hidden_size
    embedded_BLW, *further = torch.split(x_BLW, width, dim=-1)
    output = model.language_model(
        inputs_embeds=embedded_BLW,
        attention_mask=mask_BLL[:, None],
        position_ids=place_BLA.permute(2, 0, 1),
        visual_pos_masks=mask_BLL,  # unused, see ``add_everywhere``
        deepstack_visual_embeds=further,
        use_cache=False,
    )
    hidden_BLW: Tensor = output.last_hidden_state
    return hidden_BLW


def _qwen_grid(model: Any, image_size: int) -> tuple[int, int]:  # noqa: ANN401  transformers has no types
    config = model.visual.config
    side = image_size // (config.patch_size * config.spatial_merge_size)
    return side, side


_QWEN = Family(
    _prepare_qwen,
    _see_qwen,
    _read_qwen,
    further=lambda model: len(model.visual.deepstack_visual_indexes),
    grid=_qwen_grid,
    image_size=lambda model: 224,  # the model takes any multiple of 32
)

_FAMILIES = {
    "idefics3": _SMOLVLM,
    "paligemma": _PALIGEMMA,
    "qwen3_vl": _QWEN,
    "smolvlm": _SMOLVLM,
}


def embedding_width(model: nn.Module) -> int:
    """Return the width W of the language model."""
    config: Any = model.config
    return int(config.get_text_config().hidden_size)


def extended(tokens: Tensor, width: int) -> Tensor:
    """Append zeros to tokens (..., W) up to ``width``, since only images have further features."""
    return F.pad(tokens, (0, width - tokens.shape[-1]))
