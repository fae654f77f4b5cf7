"""A vision-language model of transformers as the trunk, in whose sequence z′ is read.

Axes: B batch, C cameras, I = B · C images, K = 3 colours, N tokens, L text tokens, W token width,
F features, A axes of positions.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from actionprior.errors import UserError, shorten
from actionprior.networks.device import to_device
from actionprior.networks.trunks.base import Trunk, TrunkTokens, check_inputs, resize
from actionprior.networks.trunks.frozen_part import FrozenPart
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.lora import merge_lora
from actionprior.networks.trunks.towers import eval_frozen_submodules
from actionprior.networks.trunks.tuning import Tuning, decayed, tune
from actionprior.networks.trunks.two_towers import Pixels, TunedTrunk
from actionprior.networks.trunks.vlm.families import embedding_width, extended, family_of
from actionprior.networks.trunks.vlm.fusion import SequenceFusion
from actionprior.networks.trunks.vlm.prompt import Tokenizer
from actionprior.networks.trunks.vlm.source import read_parts, recorded_parts

_DEPTH = r"^(?:.*\.)?(?:layers|blocks)\.(\d+)\."
_STEM = r"^(?:.*\.)?(?:embed\w*|patch_embed\w*|pos_embed\w*)\."


class VLMTrunk(TunedTrunk):
    """Any image-text-to-text model of transformers that takes input embeddings.

    Its tokens are the model's own input: projected images of all cameras and the words of its chat
    template. The policy puts p_k before them, and state, z_hist and query behind them, and reads
    z′ at the query from the last layer. There is no second fusion transformer.

    A checkpoint holds the model's description, its weights and its tokeniser.
    """

    mean_K11: Tensor
    std_K11: Tensor

    training_args = Trunk.training_args | {
        "freeze_image",
        "freeze_text",
        "layer_decay",
        "train_image_blocks",
        "train_text_blocks",
    }
    pretrained_args = Trunk.pretrained_args | {"random_weights", "found", "mean", "std"}

    def __init__(
        self,
        pretrained: str = "",
        layers: int = 0,
        random_weights: bool = False,
        tuning: Tuning = Tuning(freeze_image=False, freeze_text=False, lr_scale=1.0),
        pixels: Pixels = Pixels(),
        found: dict[str, Any] | None = None,
    ) -> None:
        """Build the model.

        Args:
            pretrained: Source of the model: ``hf-hub:OWNER/NAME``, with an optional ``@REVISION``,
                or ``local-dir:FOLDER`` in the hub's layout; both also without the prefix.
            layers: Number of the language model's first layers that are used; z′ is read behind
                the last of them. 0 uses all.
            random_weights: Take sizes and tokeniser from the source, but no weights.
            tuning: What trains of the image tower (with its projection) and of the language model;
                by default everything, at the module's rate.
            pixels: Size and normalisation of the images; by default the model's own, and 224
                pixels for a model that takes any size.
            found: What an earlier trunk found in its source. Only checkpoints set it.

        Raises:
            UserError: The extra ``vlm`` is not installed, the source is missing or damaged, or
                ``layers``, ``tuning`` or the image size does not fit the model.
        """
        super().__init__()
        if not pretrained and not found:
            raise UserError(
                "VLMTrunk needs a model: set pretrained to hf-hub:OWNER/NAME or local-dir:FOLDER"
            )
        parts = (
            read_parts(pretrained, layers, not random_weights)
            if pretrained
            else recorded_parts(found or {}, layers)
        )
        self.model: Any = parts.model
        self.tokenizer = Tokenizer(parts.tokenizer)
        self._family, self._prompt = family_of(parts.config["model_type"]), parts.prompt
        self._hidden, further = embedding_width(self.model), self._family.further(self.model)
        if pretrained and 0 < layers < further:  # older checkpoints may have fewer
            raise UserError(
                f"layers is {layers}, but images enter the first {further} layers of this model; "
                f"expected {further} or more, or 0 for all"
            )
        self.width = self._hidden * (1 + further)
        self._size = pixels.image_size or self._family.image_size(self.model)
        self._pixels = Pixels(
            self._size, list(pixels.mean or parts.mean), list(pixels.std or parts.std)
        )
        for name, values in zip(("mean_K11", "std_K11"), self._pixels.normalization, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self._tuning, self._layers, self._resample = tuning, layers, parts.resample
        self._found = parts.record(len(self.tokenizer.content))
        self.lr_scale = 0.0 if not self._training_towers() else tuning.lr_scale
        self.blind = tuning.freezes_image and not parts.source
        for name, tower in self._towers().items():
            tower.requires_grad_(name in self._training_towers())
        self._image_tokens = self._count_image_tokens()
        tune(self._training_towers(), tuning)
        self.train()  # Lightning keeps each submodule in the mode that it finds

    # ---- parts ----------------------------------------------------------------------------

    def _towers(self) -> dict[str, nn.Module]:
        """Return the image tower with its projection, and the language model."""
        decoder = self.model.get_decoder()
        image = [child for child in self.model.children() if child is not decoder]
        return {"image": _Tower(image), "text": _Tower([decoder])}

    def _training_towers(self) -> dict[str, nn.Module]:
        frozen = {"image": self._tuning.freezes_image, "text": self._tuning.freezes_text}
        return {name: tower for name, tower in self._towers().items() if not frozen[name]}

    def _count_image_tokens(self) -> int:
        blank = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
        try:
            with torch.no_grad():
                return self._see(blank).shape[1]
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the model does not take images of {self._size} by {self._size} pixels: "
                f"{shorten(error)}"
            ) from error

    def _see(self, images_IKYX: Tensor) -> Tensor:
        """Compute image tokens: uint8 (I, 3, any, any) → (I, N, W)."""
        if not len(images_IKYX):
            return self.mean_K11.new_zeros(0, self._image_tokens, self.width)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._tuning.freezes_image):
            resized = resize(images_IKYX, (self._size, self._size), self._resample)
            pixels = (resized - self.mean_K11) / self.std_K11
            tokens_INW: Tensor = self._family.see(self.model, pixels)
            return tokens_INW

    # ---- tokens ---------------------------------------------------------------------------

    def forward(
        self,
        images_BCKYX: Tensor,
        camera_mask_BC: Tensor,
        task: list[str],
        features_BCF: Tensor | None = None,
    ) -> TrunkTokens:
        """See :class:`Trunk`; the tokens are input embeddings of the language model.

        Raises:
            ValueError: The shapes of the arguments do not fit together.
        """
        check_inputs(images_BCKYX, camera_mask_BC, task)
        batch, cameras = images_BCKYX.shape[:2]  # 0 cameras for a robot without one
        if features_BCF is None:
            image_INW = self._see(images_BCKYX.flatten(0, 1))
        else:
            features = features_BCF.to(self.mean_K11.dtype).flatten(0, 1)
            image_INW = features.reshape(-1, self._image_tokens, self.width)
        image_BCNW = image_INW.reshape(batch, cameras, self._image_tokens, self.width)
        fixed = (self._embedded(self.tokenizer([text]).ids_BL) for text in self._fixed())
        start, before, after = (part.expand(batch, -1, -1) for part in fixed)
        block_BCNW = torch.cat(
            [
                before[:, None].expand(-1, cameras, -1, -1),
                image_BCNW.to(start.dtype),
                after[:, None].expand(-1, cameras, -1, -1),
            ],
            dim=2,
        )
        words = self.tokenizer(self._texts(task))
        text_BLW = self._embedded(words.ids_BL)
        text_mask_BL = to_device(words.mask_BL, start.device)
        shown_BCN = camera_mask_BC.bool()[..., None].expand(block_BCNW.shape[:3])
        mask_BN = torch.cat(
            [text_mask_BL.new_ones(start.shape[:2]), shown_BCN.flatten(1), text_mask_BL], dim=1
        )
        tokens_BNW = torch.cat([start, block_BCNW.flatten(1, 2), text_BLW], dim=1)
        return TrunkTokens(tokens_BNW, mask_BN, place_BNA=self._places(mask_BN, cameras))

    def instruction_signs(self, task: list[str]) -> list[InstructionSigns]:
        """See :class:`Trunk`. Instructions are never cut."""
        return [
            InstructionSigns(tuple(self.tokenizer.ids(text)), True) for text in self._texts(task)
        ]

    def _texts(self, task: list[str]) -> list[str]:
        """Return instructions with the text around them."""
        return [f"{self._prompt.before_task}{text}{self._prompt.end}" for text in task]

    def _fixed(self) -> tuple[str, str, str]:
        return self._prompt.start, self._prompt.before_image, self._prompt.after_image

    def _embedded(self, ids_BL: Tensor) -> Tensor:
        """Return the embeddings of words, (B, L, W)."""
        ids_BL = to_device(ids_BL, self.mean_K11.device)
        return extended(self.model.get_input_embeddings()(ids_BL), self.width)

    def _places(self, mask_BN: Tensor, cameras: int) -> Tensor:
        """Return the positions (B, N, A) of the tokens that exist, without gaps."""
        start, before, after = (len(self.tokenizer.ids(text)) for text in self._fixed())
        grid = self._family.grid
        one = torch.ones(self._image_tokens, dtype=torch.int64)
        offset_NA = torch.zeros(self._image_tokens, 1 if grid is None else 3, dtype=torch.int64)
        if grid is not None:  # an image counts as many positions as its longer edge
            rows, columns = grid(self.model, self._size)
            index = torch.arange(self._image_tokens)
            offset_NA[:, 1], offset_NA[:, 2] = index // columns, index % columns
            one = torch.where(index == len(index) - 1, max(rows, columns), 0)
        block = [torch.ones(before, dtype=one.dtype), one, torch.ones(after, dtype=one.dtype)]
        step_N = torch.cat([torch.ones(start, dtype=one.dtype), *(block * cameras)])
        shift_NA = nn.functional.pad(offset_NA, (0, 0, before, after)).repeat(cameras, 1)
        shift_NA = nn.functional.pad(shift_NA, (0, 0, start, mask_BN.shape[1] - len(step_N)))
        step_N = nn.functional.pad(step_N, (0, mask_BN.shape[1] - len(step_N)), value=1)
        step_BN = to_device(step_N, mask_BN.device) * mask_BN
        place_BN = step_BN.cumsum(dim=1) - step_BN
        return place_BN[..., None] + to_device(shift_NA, mask_BN.device)

    def own_fusion(
        self, prior_width: int, latent_width: int, state_dropout: float
    ) -> SequenceFusion:
        """Return the tokens of robot, state, history and query around this trunk's."""
        with torch.no_grad():
            embedded = self.model.get_input_embeddings()(torch.arange(64))
        return SequenceFusion(
            _LanguageModel(self),
            self._hidden,
            float(embedded.square().mean().sqrt()),
            self._family.two_way,
            prior_width,
            latent_width,
            state_dropout,
        )

    def read(self, x_BLW: Tensor, mask_BLL: Tensor, place_BLA: Tensor) -> Tensor:
        """Run the language model over a sequence; see :class:`SequenceFusion`."""
        return self._family.read(self.model, x_BLW, mask_BLL, place_BLA)

    # ---- checkpoints and training ---------------------------------------------------------

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`; ``found`` describes the model."""
        own = {"pretrained": "", "random_weights": False, "layers": self._layers}
        return own | asdict(self._tuning) | asdict(self._pixels) | {"found": dict(self._found)}

    @classmethod
    def args_for_checkpoint(
        cls, arguments: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See :class:`Trunk`; the model's description comes from the checkpoint."""
        changed = super().args_for_checkpoint(arguments, recorded)
        return changed | {name: recorded[name] for name in ("found",) if name in recorded}

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Yield the model at ``lr_scale``, or per layer if it decays."""
        if self._tuning.layer_decay == 1:
            yield [p for p in self.parameters() if p.requires_grad], self.lr_scale
            return
        for name, tower in self._training_towers().items():
            for parameters, factor in decayed(tower, name, self._tuning.layer_decay):
                yield parameters, self.lr_scale * factor

    def constant_buffers(self) -> set[str]:
        """Return all buffers: the tokeniser, frequencies and the pixels' normalisation."""
        return {name for name, _ in self.named_buffers()}

    def frozen_part(self) -> FrozenPart | None:
        """Return the image tower with its projection, if nothing of it trains."""
        if not self._tuning.freezes_image:
            return None
        settings = {"config": self._found["config"], "size": self._size}
        settings["resample"] = self._resample
        return FrozenPart(
            self._towers()["image"],
            lambda images_IKYX: self._see(images_IKYX).flatten(1),
            math.prod((self._image_tokens, self.width)),
            settings | {"mean": self._pixels.mean, "std": self._pixels.std},
        )

    def merge(self) -> None:
        """Fold low-rank updates into the weights, and freeze the towers that had them."""
        if not self._tuning.lora_rank:
            return
        for tower in self._training_towers().values():
            merge_lora(tower)
            tower.requires_grad_(False)
        self._tuning = Tuning(lr_scale=self._tuning.lr_scale)
        self.lr_scale = 0.0
        self.train(self.training)

    def train(self, mode: bool = True) -> "VLMTrunk":
        """Set the mode; frozen submodules stay in evaluation mode."""
        super().train(mode)
        eval_frozen_submodules(self.model)
        return self


class _Tower(nn.ModuleList):
    """Parts of a model that train together, with the depth of their layers."""

    def group_matcher(self) -> dict[str, str]:
        """Return layers by name, in timm's form."""
        return {"stem": _STEM, "blocks": _DEPTH}


class _LanguageModel:
    """Call a trunk's language model; not a submodule, because its weights are the trunk's."""

    def __init__(self, trunk: VLMTrunk) -> None:
        self.trunk = trunk

    def __call__(self, x_BLW: Tensor, mask_BLL: Tensor, place_BLA: Tensor) -> Tensor:
        return self.trunk.read(x_BLW, mask_BLL, place_BLA)
