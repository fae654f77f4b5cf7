"""open_clip's image and text towers as modules that return tokens.

Axes: I images, K = 3 colours, B instructions, C channels, Y rows, X columns, L tokens, W width.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from actionprior.errors import UserError, missing_extra, near_matches, shorten
from actionprior.networks.device import to_device
from actionprior.networks.trunks.base import resize
from actionprior.networks.trunks.hub import FOLDER, hub_model, is_hub_source
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.text_cache import TextCache, TextFeatures

_HUB_CONFIG = "open_clip_config.json"
_HUB_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",  # read with weights_only=True
)


class ClipParts(NamedTuple):
    """Towers of an open_clip model, and the normalisation of its pixels."""

    visual: nn.Module
    text: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quick_gelu: bool


def clip_parts(
    model: str,
    pretrained: str = "",
    quick_gelu: bool | None = None,
    image_size: int = 0,
) -> ClipParts:
    """Build an open_clip model and return its towers.

    Args:
        model: open_clip's name of the architecture, e.g. ``ViT-B-16``.
        pretrained: Tag, local file of weights, ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME`` in
            the hub's layout, or empty for random weights.
        quick_gelu: Use OpenAI's variant of GELU; None decides by the source of the weights.
        image_size: Edge of the images [pixels]; 0 takes the model's own.

    Raises:
        UserError: Name or tag is unknown, a file does not fit, or a download failed.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if is_hub_source(model):
        raise UserError(
            f"model is {model!r}; expected open_clip's name of its architecture, so that a "
            "policy's checkpoint needs no other file; give the source of the weights as pretrained"
        )
    if model not in (known := open_clip.list_models()):
        raise UserError(f"open_clip has no model {model!r}{near_matches(model, known)}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    # A model without weights of its own reports open_clip's default mean and std, which are
    # wrong for many families: those of its tags are the family's.
    tag, file = get_pretrained_cfg(model, pretrained) if pretrained else {}, pretrained
    if is_hub_source(pretrained):
        hub = hub_model(pretrained, _HUB_CONFIG, _HUB_WEIGHTS)
        gelu = bool(hub.config.get("model_cfg", {}).get("quick_gelu", False))
        tag, file = {"quick_gelu": gelu} | hub.config.get("preprocess_cfg", {}), str(hub.weights)
    elif pretrained and not tag and not Path(pretrained).is_file():
        raise UserError(
            f"open_clip has no weights {pretrained!r} for {model}, and no such file exists"
            f"{near_matches(pretrained, tags)}"
        )
    family = tag or get_pretrained_cfg(model, tags[0] if tags else "")
    if quick_gelu is None:
        config = open_clip.get_model_config(model)
        quick_gelu = bool(tag.get("quick_gelu", config.get("quick_gelu", False)))
    try:
        with warnings.catch_warnings():
            # open_clip warns that the GELU differs from the tag's, even if we set the right one.
            warnings.simplefilter("ignore", UserWarning)
            # Custom text makes the text tower a submodule in every family of models.
            clip = open_clip.create_model(
                model,
                pretrained=file or None,
                force_custom_text=True,
                force_quick_gelu=quick_gelu,
                force_image_size=image_size or None,
                pretrained_text=False,
                weights_only=True,
            )
    except Exception as error:  # network, pickle, keys, shapes: open_clip raises many kinds
        what = f"weights {pretrained!r} of open_clip model {model}" if pretrained else model
        raise UserError(f"{what} cannot be loaded: {shorten(error)}") from error
    return ClipParts(
        clip.visual,
        clip.text,
        tuple(family.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        tuple(family.get("std", open_clip.OPENAI_DATASET_STD)),
        quick_gelu,
    )


class TextTower(nn.Module):
    """An open_clip text tower with its tokeniser, which returns word tokens of instructions."""

    def __init__(self, tower: nn.Module, model: str, freeze: bool, pretrained: str = "") -> None:
        """Wrap a tower.

        Args:
            tower: Text tower from :func:`clip_parts`.
            model: Name of its architecture, which decides the tokeniser.
            freeze: Train nothing of it, and cache the features of instructions.
            pretrained: Source of its weights. The files of SigLIP's tokeniser are read from it if
                it is a ``local-dir:FOLDER``, else from the hub or its cache.

        Raises:
            UserError: The tokeniser needs ``transformers``, its download failed, or the tower
                returns no word tokens.
        """
        super().__init__()
        if not hasattr(tower, "forward_intermediates"):
            raise UserError(f"the text tower of open_clip model {model} gives no word tokens")
        try:
            self._tokenizer = _tokenizer(model, pretrained)
            self._padding = int(self._tokenizer([""])[0, -1])
        except ImportError as error:
            raise UserError(
                f"the tokeniser of open_clip model {model} needs {error.name}; "
                f"{missing_extra(error.name or 'transformers', 'siglip')}"
            ) from error
        except Exception as error:  # no network, nothing in the cache, a damaged file
            raise UserError(
                f"the tokeniser of open_clip model {model} cannot be loaded "
                f"({shorten(error)}){_how_to_get_tokenizer(model)}"
            ) from error
        self.tower, self.cache, self.frozen = tower, TextCache(), freeze
        if freeze:
            cast(Any, tower).lock()
        self.width = freeze_unused(tower, lambda: self._encode(["a"]).tokens_BLW).shape[-1]

    def forward(self, task: list[str]) -> TextFeatures:
        """Return token features of B instructions, (B, L, W); L is the longest's length."""
        features: TextFeatures = self.cache(task, self._encode, self.frozen)
        return features

    def train(self, mode: bool = True) -> "TextTower":
        """Set the mode; frozen submodules stay in evaluation mode."""
        super().train(mode)
        eval_frozen_submodules(self.tower)
        return self

    def signs(self, task: list[str]) -> list[InstructionSigns]:
        """Return what is read of instructions. One that fills all places counts as cut."""
        return [
            InstructionSigns(tuple(row_L), row_L[-1] == self._padding)
            for row_L in self._tokenizer(task).tolist()
        ]

    def _encode(self, task: list[str]) -> TextFeatures:
        ids_BL = self._tokenizer(task)
        # Up to the last token that is not padding, because padding's id may also be a word's.
        position_L = torch.arange(ids_BL.shape[1])
        last_B1 = ((ids_BL != self._padding) * position_L).amax(dim=1, keepdim=True)
        mask_BL = (position_L <= last_B1)[:, : int(last_B1.max()) + 1]
        device = next(self.tower.parameters()).device
        ids_BL = to_device(ids_BL, device)
        output = cast(Any, self.tower).forward_intermediates(
            ids_BL,
            indices=1,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
        )
        tokens_BLW: Tensor = output["text_intermediates"][-1][:, : mask_BL.shape[1]]
        return TextFeatures(tokens_BLW, to_device(mask_BL, device))


def _tokenizer(model: str, pretrained: str) -> Callable[[list[str]], Tensor]:
    import open_clip

    text = open_clip.get_model_config(model)["text_cfg"]
    if not text.get("hf_tokenizer_name") or not pretrained.startswith(FOLDER):
        return _open_clip_tokenizer(model)
    # get_tokenizer(pretrained) would run code from the folder if the folder's config asks for it.
    tokenizer = open_clip.tokenizer.HFTokenizer(
        pretrained.removeprefix(FOLDER),
        context_length=text["context_length"],
        tokenizer_mode=text.get("tokenizer_mode"),
        trust_remote_code=False,
        **text.get("tokenizer_kwargs", {}),
    )
    return cast(Callable[[list[str]], Tensor], tokenizer)


def _how_to_get_tokenizer(model: str) -> str:
    import open_clip

    name = open_clip.get_model_config(model)["text_cfg"].get("hf_tokenizer_name")
    if not name:
        return ""
    return f"; policies are loaded without a network: run `hf download {name}` once"


@cache
def _open_clip_tokenizer(model: str) -> Callable[[list[str]], Tensor]:
    """Build a model's tokenizer once; reading its vocabulary takes a tenth of a second."""
    import open_clip

    return cast(Callable[[list[str]], Tensor], open_clip.get_tokenizer(model))


class ImageTower(nn.Module):
    """An image model that turns images of any size into a feature map."""

    mean_K11: Tensor
    std_K11: Tensor

    def __init__(
        self,
        tower: nn.Module,
        features: Callable[[nn.Module, Tensor], Tensor],
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        freeze: bool,
    ) -> None:
        """Wrap a tower.

        Args:
            tower: Image model.
            features: Function of the tower and normalised pixels (I, 3, *size) that returns
                (I, C, Y, X). It takes the tower as an argument so that copies of the trunk use
                their own tower.
            size: Rows and columns of the tower's images [pixels].
            mean: Mean of each colour in the tower's training, in [0, 1].
            std: Standard deviation of each colour in the tower's training.
            freeze: Train nothing of the tower.

        Raises:
            UserError: The tower does not take images of this size.
        """
        super().__init__()
        self.tower, self.size, self.frozen = tower, size, freeze
        self._features = features
        self.register_buffer("mean_K11", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std_K11", torch.tensor(std)[:, None, None], persistent=False)
        if freeze:
            tower.requires_grad_(False)
        blank = torch.zeros(1, 3, *size, dtype=torch.uint8)
        try:
            self.map_size = freeze_unused(tower, lambda: self(blank)).shape[1:]
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the image tower does not take images of {size[0]} by {size[1]} pixels: "
                f"{shorten(error)}"
            ) from error
        self.width = self.map_size[0]

    def forward(self, images_IKYX: Tensor) -> Tensor:
        """Compute feature maps: uint8 (I, 3, any, any) → (I, C, Y, X)."""
        if not len(images_IKYX):  # vision transformers cannot reshape an empty batch
            return self.mean_K11.new_zeros(0, *self.map_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x_IKYX = (resize(images_IKYX, self.size) - self.mean_K11) / self.std_K11
            return self._features(self.tower, x_IKYX)

    def train(self, mode: bool = True) -> "ImageTower":
        """Set the mode; frozen submodules stay without dropout and batch statistics."""
        super().train(mode)
        eval_frozen_submodules(self.tower)
        return self


def eval_frozen_submodules(tower: nn.Module) -> None:
    """Put fully frozen submodules in evaluation mode."""
    for submodule in tower.modules():
        parameters = list(submodule.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            submodule.eval()


def freeze_unused(tower: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    """Run a tower once, freeze parameters that its output does not depend on, return the output.

    Pooling and projection heads get no gradient from tokens, and data-parallel training refuses
    parameters without a gradient.
    """
    tower.eval()  # keep the batch statistics
    output = run()
    parameters = [p for p in tower.parameters() if p.requires_grad]
    if parameters:
        gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
    tower.train(bool(parameters))
    return output
