"""A compact trunk: a pretrained convolutional network, pretrained words and soft keypoints.

Axes: B batch, C cameras, I = B · C images, J keypoints, L words, N tokens, W token width,
F features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from actionprior.errors import UserError
from actionprior.networks.trunks.base import (
    Trunk,
    TrunkTokens,
    check_inputs,
    join_tokens,
    place_code,
)
from actionprior.networks.trunks.frozen_part import FrozenPart
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.keypoints import KeypointReader, Keypoints, KeypointTokens
from actionprior.networks.trunks.pyramid import FeaturePyramid, load_model
from actionprior.networks.trunks.region import Region, check_regions, crop_region
from actionprior.networks.trunks.text_cache import TextCache, TextFeatures
from actionprior.networks.trunks.word_encoder import TextEncoder
from actionprior.networks.trunks.word_table import (
    PretrainedTextEncoder,
    TableSize,
    WordTable,
    load_word_table,
)


class CompactTrunk(Trunk):
    """Soft keypoints in the feature maps of a convolutional ImageNet network of timm.

    The instruction decides by FiLM what the keypoints look for. Each camera gives a few tokens
    that summarise the coordinates and features of all its keypoints, and they are its summary, too.
    The words follow after all cameras.

    By default the network is frozen, and under a million parameters train.
    """

    training_args = Trunk.training_args | {"train_image_blocks", "map_dropout"}
    pretrained_args = Trunk.pretrained_args | {"text_pretrained", "found"}

    def __init__(
        self,
        model: str = "tf_efficientnet_lite0",
        pretrained: str = "",
        text_pretrained: str = "",
        width: int = 128,
        image_size: int = 128,
        strides: tuple[int, ...] = (8, 16),
        channels: int = 64,
        keypoints: int = 32,
        summaries: int = 4,
        text_width: int = 64,
        freeze: bool = True,
        train_image_blocks: int = 0,
        lr_scale: float = 0.1,
        map_dropout: float = 0.0,
        regions: Sequence[Region | None] | None = None,
        found: dict[str, Any] | None = None,
    ) -> None:
        """Create the trunk.

        Args:
            model: timm's name of a convolutional network.
            pretrained: Source of the network's weights: a local file, ``auto``, one of timm's
                tags, ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``. ``auto`` takes an installed
                package of the extra ``pretrained``, or else timm's first tag, which is downloaded.
                Empty gives random weights.
            text_pretrained: Source of the words' embeddings: a safetensors file with
                ``tokenizer.json`` beside it, or ``auto`` for the table of the package
                ``wordllama`` of the extra ``pretrained``. Empty learns words from scratch.
            width: Width W of the tokens.
            image_size: Edge to which images are resized [pixels], a multiple of the largest
                stride.
            strides: Strides of the feature maps that are used [pixels], finest first.
            channels: Number of channels of the combined feature map.
            keypoints: Number J of keypoints per camera.
            summaries: Number of tokens per camera that summarise all its keypoints.
            text_width: Width of the text encoder, a multiple of 4.
            freeze: Train nothing of the network. Keypoints and text encoder always train.
            train_image_blocks: Number of last blocks that train in an unfrozen network; 0 trains
                the whole network.
            lr_scale: Learning rate of the network, relative to the module's; 0 freezes it, too.
            map_dropout: Share of the feature maps' channels that each training step hides at
                random. With few scenes, it keeps the trunk from memorising them.
            regions: Part of the image to look at, for each camera in the robot's order: [top,
                left, bottom, right] as shares of the image, or null for the whole image, which
                further cameras get, too. A fixed camera then shows small things larger at the
                same cost.
            found: What an earlier trunk found in its sources. Only checkpoints set it.

        Raises:
            UserError: A size does not fit, the network is unknown, or weights are missing or of
                another network.
        """
        super().__init__()
        self.frozen = freeze or lr_scale == 0
        self.width, self.lr_scale = width, 0.0 if self.frozen else lr_scale
        self.summary_width = summaries * width
        train_blocks = _blocks_to_train(self.frozen, train_image_blocks)
        loaded, words = load_model(model, pretrained, image_size), load_word_table(text_pretrained)
        pixels = cast(Any, loaded.model).pretrained_cfg
        self._found: dict[str, Any] = {
            "image_source": loaded.source,
            "text_source": words.source,
            "mean": list(pixels["mean"]),
            "std": list(pixels["std"]),
            "vocabulary": list(words.table.size) if words.table else None,
        }
        # A recorded trunk names no sources, so that all is as it was found.
        self._found |= found or {}
        mean, std = self._found["mean"], self._found["std"]
        self.image = FeaturePyramid(loaded.model, strides, image_size, mean, std, train_blocks)
        self.text = _text_encoder(text_width, words.table, self._found["vocabulary"])
        self.cache = TextCache()
        map_channels = [shape[0] for shape in self.image.map_shapes]
        if not 0 <= map_dropout < 1:
            raise UserError(f"map_dropout is {map_dropout}; expected a share from 0 to below 1")
        self.hide_maps = nn.Dropout2d(map_dropout)
        self.regions = check_regions(regions)
        self.reader = KeypointReader(map_channels, channels, keypoints, text_width)
        self.writer = KeypointTokens(channels, keypoints, summaries, width)
        self.from_word = nn.Linear(text_width, width)
        untrained = any(not p.requires_grad for p in self.image.parameters())
        self.blind = untrained and not self._found["image_source"]
        self._args = {
            "model": model,
            "pretrained": "",
            "text_pretrained": "",
            "width": width,
            "image_size": image_size,
            "strides": list(strides),
            "channels": channels,
            "keypoints": keypoints,
            "summaries": summaries,
            "text_width": text_width,
            "freeze": freeze,
            "train_image_blocks": train_image_blocks,
            "lr_scale": lr_scale,
            "map_dropout": map_dropout,
            "regions": [region and list(region) for region in self.regions] or None,
        }

    def instruction_signs(self, task: list[str]) -> list[InstructionSigns]:
        """See :class:`Trunk`."""
        return self.text.signs(task)

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`; ``found`` says which sources the first weights came from."""
        return self._args | {"found": dict(self._found)}

    @classmethod
    def args_for_checkpoint(
        cls, arguments: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See :class:`Trunk`; what was found in the weights' sources comes from the checkpoint."""
        changed = super().args_for_checkpoint(arguments, recorded)
        return changed | {name: recorded[name] for name in ("found",) if name in recorded}

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Yield the network's parameters at ``lr_scale``, and all others at full rate."""
        network = list(self.image.parameters())
        yield [p for p in network if p.requires_grad], self.lr_scale
        known = {id(p) for p in network}
        yield [p for p in self.parameters() if id(p) not in known], 1.0

    def read(self, task: list[str]) -> TextFeatures:
        """Return the features of instructions; position 0 summarises each."""
        features: TextFeatures = self.cache(task, self.text, False)
        return features

    def frozen_part(self) -> FrozenPart | None:
        """Return the image network if nothing of it trains."""
        if not self.image.frozen:
            return None
        settings = {name: self._args[name] for name in ("model", "image_size", "strides")}
        width = sum(math.prod(shape) for shape in self.image.map_shapes)
        part = FrozenPart(self.image, self.image.pack, width, settings, self.image.move)
        if not any(self.regions):
            return part
        regions = {"regions": self._args["regions"]}
        return part._replace(settings=settings | regions, crop=self.crop)

    def crop(self, images_IKYX: Tensor, camera: int) -> Tensor:
        """Return the region of one camera's images, (I, 3, any, any)."""
        known = camera < len(self.regions)
        return crop_region(images_IKYX, self.regions[camera] if known else None)

    def constant_buffers(self) -> set[str]:
        """Return all buffers: the word table, and the statistics of a network in eval mode."""
        return {name for name, _ in self.named_buffers()}

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
        text = self.read(task)
        # Cameras show the same things in other ways, so that each is read in its own way.
        code_C1W = place_code(cameras, 1, 1, text.tokens_BLW.shape[-1], text.tokens_BLW.device)
        summary_IW = (text.tokens_BLW[:, :1] + code_C1W[:, 0]).flatten(0, 1)
        if features_BCF is None:
            maps = self._maps(images_BCKYX)
        else:
            maps = self.image.unpack(features_BCF.flatten(0, 1))
        found: Keypoints = self.reader([self.hide_maps(m) for m in maps], summary_IW)
        image_INW = self.writer(found, batch, cameras)
        image_BCNW = image_INW.reshape(batch, cameras, *image_INW.shape[1:])
        tokens = join_tokens(
            image_BCNW, camera_mask_BC, self.from_word(text.tokens_BLW), text.mask_BL
        )
        return tokens._replace(summary_BCF=image_BCNW.flatten(2) * camera_mask_BC[..., None])

    def _maps(self, images_BCKYX: Tensor) -> tuple[Tensor, ...]:
        """Return feature maps (B · C, channels, rows, columns) of each stride."""
        cameras = images_BCKYX.shape[1]
        if not cameras or not any(self.regions):
            found: tuple[Tensor, ...] = self.image(images_BCKYX.flatten(0, 1))
            return found
        # Regions differ in size, so that each camera is resized separately.
        each = [self.image(self.crop(images_BCKYX[:, c], c)) for c in range(cameras)]
        return tuple(torch.stack(maps, dim=1).flatten(0, 1) for maps in zip(*each, strict=True))


def _blocks_to_train(frozen: bool, train_image_blocks: int) -> int | None:
    if train_image_blocks and frozen:
        raise UserError(
            f"train_image_blocks is {train_image_blocks}, but the image network is frozen; "
            "set freeze: false and a lr_scale above 0"
        )
    return None if frozen else train_image_blocks


def _text_encoder(
    width: int, table: WordTable | None, vocabulary: Sequence[int] | None
) -> TextEncoder:
    if table is None and vocabulary is None:
        return TextEncoder(width)
    if table is None:  # a checkpoint fills it
        table = WordTable(TableSize(*cast(Any, vocabulary)))
    return PretrainedTextEncoder(width, table)
