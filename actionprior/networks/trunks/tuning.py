"""What trains of pretrained towers, and how fast: last blocks, low-rank updates, layer rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from actionprior.errors import UserError, near_matches
from actionprior.networks.trunks.lora import UpdatableLayer, add_lora, updatable

_OPEN_CLIP = {
    "stem": r"^(?:conv1|class_embedding|positional_embedding|ln_pre|token_embedding|cls_emb)",
    "blocks": r"^transformer\.resblocks\.(\d+)",
}
"""Layers of open_clip's transformers, in the form of timm's ``group_matcher``."""
_REST = {"rest": [(r"", (99999,))]}
"""A ``group_matcher`` that assigns everything unmatched so far to the last block."""


@dataclass(frozen=True)
class Tuning:
    """What trains of a trunk's two towers, and how fast; by default both are frozen.

    Attributes:
        freeze_image: Train nothing of the image tower.
        freeze_text: Train nothing of the text tower, and encode each instruction only once.
        lr_scale: Learning rate of the towers, relative to the module's; 0 freezes both.
        train_image_blocks: Number of last blocks that train in an unfrozen image tower; 0 trains
            the whole tower.
        train_text_blocks: Number of last blocks that train in an unfrozen text tower; 0 trains
            the whole tower.
        lora_rank: Rank of low-rank updates (LoRA), which train instead of the weights of unfrozen
            towers, in the blocks that train; 0 trains the weights themselves.
        lora_alpha: Scale of the updates: they are multiplied by ``lora_alpha / lora_rank``.
        lora_targets: Names of the updated layers, or ends of their names, e.g. ``qkv`` or
            ``mlp.fc1``; None updates every linear layer and 1×1 convolution.
        layer_decay: Factor from the learning rate of a block to that of the block before it.
    """

    freeze_image: bool = True
    freeze_text: bool = True
    lr_scale: float = 0.1
    train_image_blocks: int = 0
    train_text_blocks: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: list[str] | None = None
    layer_decay: float = 1.0

    @property
    def freezes_image(self) -> bool:
        """True if nothing of the image tower trains."""
        return self.freeze_image or self.lr_scale == 0

    @property
    def freezes_text(self) -> bool:
        """True if nothing of the text tower trains."""
        return self.freeze_text or self.lr_scale == 0


def tune(towers: Mapping[str, nn.Module], tuning: Tuning) -> None:
    """Freeze the parameters that ``tuning`` excludes, and add its low-rank updates.

    Args:
        towers: Unfrozen towers by name, ``image`` and ``text``.
        tuning: What trains of them.

    Raises:
        UserError: ``tuning`` does not fit the towers, or tunes a frozen one.
    """
    _check(towers, tuning)
    for name, count in (("image", tuning.train_image_blocks), ("text", tuning.train_text_blocks)):
        if count:
            train_last_blocks(towers[name], name, count)
    if tuning.layer_decay < 1:
        for name, tower in towers.items():
            layers(tower, name)
    if tuning.lora_rank:
        for tower, found in _choose(towers, tuning.lora_targets or ()):
            add_lora(tower, found, tuning.lora_rank, tuning.lora_alpha)


def _check(towers: Mapping[str, nn.Module], tuning: Tuning) -> None:
    for name in ("image", "text"):
        if getattr(tuning, f"train_{name}_blocks") and name not in towers:
            raise UserError(
                f"train_{name}_blocks is {getattr(tuning, f'train_{name}_blocks')}, but the {name} "
                f"tower is frozen; set freeze_{name}: false and a lr_scale above 0"
            )
    if tuning.lora_rank < 0 or not tuning.lora_alpha > 0:
        raise UserError(
            f"lora_rank is {tuning.lora_rank} and lora_alpha {tuning.lora_alpha}; "
            "expected a rank of 0 (no LoRA) or more and an alpha above 0"
        )
    if not 0 < tuning.layer_decay <= 1:
        raise UserError(
            f"layer_decay is {tuning.layer_decay}; expected a factor above 0 and at most 1"
        )
    for name, used in (("lora_rank", tuning.lora_rank), ("layer_decay", tuning.layer_decay < 1)):
        if used and not towers:
            raise UserError(
                f"{name} is {getattr(tuning, name)}, but both towers are frozen; "
                "set freeze_image or freeze_text: false and a lr_scale above 0"
            )
    if tuning.lora_targets and not tuning.lora_rank:
        raise UserError(
            f"lora_targets are {list(tuning.lora_targets)}, but lora_rank is 0; give it, e.g. 16"
        )


def layers(tower: nn.Module, name: str) -> list[list[nn.Parameter]]:
    """Group a tower's parameters by depth: those before the blocks, then those of each block.

    Parameters after the last block belong to it.

    Args:
        tower: Tower of timm or open_clip.
        name: Name of the tower in error messages, ``image`` or ``text``.

    Raises:
        UserError: The tower does not consist of blocks.
    """
    from timm.models import group_parameters

    inner: Any = getattr(tower, "trunk", tower)  # open_clip wraps timm's models
    matcher = inner.group_matcher() if hasattr(inner, "group_matcher") else _OPEN_CLIP
    if isinstance(matcher, dict):
        matcher = {**matcher, **_REST}
    by_depth = group_parameters(inner, matcher, return_values=True)
    if len(by_depth) < 2:
        raise UserError(
            f"the {name} tower (a {type(inner).__name__}) has no known blocks; "
            f"leave train_{name}_blocks at 0 and layer_decay at 1"
        )
    return list(by_depth.values())


def train_last_blocks(tower: nn.Module, name: str, count: int) -> None:
    """Freeze a tower except for its last ``count`` blocks.

    The frozen blocks store nothing for the backward pass, because no gradient is needed there.

    Raises:
        UserError: The tower has fewer blocks, or no blocks.
    """
    blocks = layers(tower, name)[1:]
    if not 1 <= count <= len(blocks):
        raise UserError(
            f"train_{name}_blocks is {count}, but the {name} tower has {len(blocks)} blocks; "
            f"expected 1 to {len(blocks)}, or 0 for the whole tower"
        )
    trainable = {id(p) for block in blocks[-count:] for p in block}
    for parameter in tower.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in trainable)


def decayed(tower: nn.Module, name: str, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Return each layer's trainable parameters and learning-rate factor, last layer first.

    Block i of n, counted from 0, has the factor decay^(n - 1 - i). The layers before the blocks
    have decay^n (arXiv 2106.08254).
    """
    return [
        ([p for p in layer if p.requires_grad], decay**above)
        for above, layer in enumerate(reversed(layers(tower, name)))
    ]


def _choose(
    towers: Mapping[str, nn.Module], targets: Sequence[str]
) -> list[tuple[nn.Module, list[UpdatableLayer]]]:
    """Choose the layers of each tower that get low-rank updates."""
    found = {name: updatable(tower) for name, tower in towers.items()}
    known = sorted({layer.name.split(".")[-1] for some in found.values() for layer in some})
    for target in targets:
        if not any(layer.is_called(target) for some in found.values() for layer in some):
            raise UserError(
                f"lora_targets: no layer that trains is called {target!r}"
                f"{near_matches(target, known)}"
            )
    chosen = {
        name: [layer for layer in some if any(layer.is_called(t) for t in targets)]
        if targets
        else [layer for layer in some if layer.linear]
        for name, some in found.items()
    }
    for name, some in chosen.items():
        if not some:
            names = sorted({layer.name.split(".")[-1] for layer in found[name]})
            raise UserError(
                f"LoRA: lora_targets {list(targets)} name no layer of the {name} tower; "
                f"it has {', '.join(names)}; name one, or set freeze_{name}: true"
            )
    return [(towers[name], some) for name, some in chosen.items()]
