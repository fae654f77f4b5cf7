"""A small trunk without pretrained weights, fast on one CPU core.

Axes: B batch, C cameras, I = B · C images, R roles (target, goal), L words, W token width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError
from actionprior.networks.places import PLACE_FEATURES, place_features
from actionprior.networks.trunks.base import (
    Trunk,
    TrunkTokens,
    check_inputs,
    join_tokens,
    place_code,
    read_weights,
    resize,
)
from actionprior.networks.trunks.film_cnn import ROLES, STRIDE, FiLMCNN, VisionOutput
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.text_cache import TextCache, TextFeatures
from actionprior.networks.trunks.word_encoder import TextEncoder


class SmallTrunk(Trunk):
    """A FiLM-CNN conditioned on a small text encoder that respects the order of words.

    Each camera gives a token for the target and one for the goal, both with the object's place in
    metres, and ``grid``² tokens of the feature map. The words follow after all cameras.
    ``lightning ground`` warms the trunk up so that these places are right.
    """

    def __init__(
        self,
        width: int = 128,
        image_size: int = 64,
        channels: int = 64,
        text_width: int = 64,
        grid: int = 4,
        weights: str = "",
        freeze: bool = False,
        lr_scale: float = 1.0,
        summary: bool = False,
    ) -> None:
        """Create the trunk.

        Args:
            width: Width W of the tokens.
            image_size: Edge to which images are resized [pixels], a multiple of 8.
            channels: Number of the CNN's channels, a multiple of 8.
            text_width: Width of the text encoder, a multiple of 4.
            grid: Number of tokens along each edge of the feature map.
            weights: Safetensors file written by ``lightning ground``; empty: random weights.
            freeze: Train nothing of the trunk.
            lr_scale: Learning rate of the trunk, relative to the module's; 0 freezes it, too.
            summary: Let the policy read the tokens of target and goal and the instruction's
                directly, too, without attention (``Trunk.summary_width``), and where target and
                goal are from the robot's tip (``Trunk.things``). It needs fewer steps.

        Raises:
            UserError: A size does not fit, or the ``weights`` file is missing, damaged or of
                another architecture.
        """
        super().__init__()
        if image_size < 16 or image_size % 8:
            raise UserError(f"SmallTrunk: image_size is {image_size}, expected a multiple of 8")
        if not 1 <= grid <= image_size // STRIDE:
            raise UserError(
                f"SmallTrunk: grid is {grid}, expected 1 to {image_size // STRIDE} "
                f"at image_size {image_size}"
            )
        if width < PLACE_FEATURES + 16:
            raise UserError(f"SmallTrunk: width is {width}, expected {PLACE_FEATURES + 16} or more")
        self.width, self.image_size, self.grid = width, image_size, grid
        self.summary_width = (len(ROLES) + 1) * width if summary else 0
        self.things = len(ROLES) if summary else 0
        self.text = TextEncoder(text_width)
        self.cache = TextCache()
        self.vision = FiLMCNN(channels, text_width)
        self.from_word = nn.Linear(text_width, width)
        self.from_map = nn.Linear(channels, width)
        self.from_object = nn.Linear(channels + 1, width - PLACE_FEATURES)
        self.role_RW = nn.Parameter(torch.randn(len(ROLES), width) * 0.1)
        if weights:
            read_weights(self, weights)
        self.frozen = freeze or lr_scale == 0
        self.lr_scale = 0.0 if self.frozen else lr_scale
        self.blind = self.frozen and not weights
        self._args = {
            "width": width,
            "image_size": image_size,
            "channels": channels,
            "text_width": text_width,
            "grid": grid,
            "weights": "",
            "freeze": freeze,
            "lr_scale": lr_scale,
            "summary": summary,
        }
        self.requires_grad_(not self.frozen)

    def instruction_signs(self, task: list[str]) -> list[InstructionSigns]:
        """See :class:`Trunk`."""
        return self.text.signs(task)

    def init_args(self) -> dict[str, Any]:
        """See :class:`Trunk`."""
        return dict(self._args)

    def look(self, images_IKYX: Tensor, text: TextFeatures) -> VisionOutput:
        """Look at uint8 images (I, 3, any, any) for what I instructions describe."""
        x_IKYX = resize(images_IKYX, (self.image_size, self.image_size)) * 2 - 1
        output: VisionOutput = self.vision(x_IKYX, text.tokens_BLW[:, 0])
        return output

    def read(self, task: list[str]) -> TextFeatures:
        """Return the features of instructions; position 0 summarises each."""
        features: TextFeatures = self.cache(task, self.text, self.frozen)
        return features

    def forward(self, images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> TrunkTokens:
        """See :class:`Trunk`.

        Raises:
            ValueError: The shapes of the arguments do not fit together.
        """
        check_inputs(images_BCKYX, camera_mask_BC, task)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            batch, cameras = images_BCKYX.shape[:2]  # 0 cameras for a robot without one
            text = self.read(task)
            vision = self.look(
                images_BCKYX.flatten(0, 1),
                TextFeatures(*(t.repeat_interleave(cameras, dim=0) for t in text)),
            )
            sizes = (batch, cameras)
            objects_IRW = self._object_tokens(vision, *sizes)
            image_INW = torch.cat([objects_IRW, self._map_tokens(vision, *sizes)], dim=1)
            words_BLW = self.from_word(text.tokens_BLW)
            image_BCNW = image_INW.reshape(batch, cameras, *image_INW.shape[1:])
            tokens = join_tokens(image_BCNW, camera_mask_BC, words_BLW, text.mask_BL)
            if not self.summary_width:
                return tokens
            task_BC1W = words_BLW[:, None, :1].expand(-1, cameras, -1, -1)
            objects_BCRW = objects_IRW.reshape(batch, cameras, *objects_IRW.shape[1:])
            summary_BCF = torch.cat([objects_BCRW, task_BC1W], dim=2).flatten(2)
            thing_BCR3 = vision.place_IR3.reshape(batch, cameras, len(ROLES), 3)
            return tokens._replace(
                summary_BCF=summary_BCF * camera_mask_BC[..., None], thing_BCR3=thing_BCR3
            )

    def _object_tokens(self, vision: VisionOutput, batch: int, cameras: int) -> Tensor:
        """Return place, appearance and certainty of target and goal, (I, R, W)."""
        weight_IRN = vision.weight_IRN
        appearance_IRC = weight_IRN @ vision.map_ICYX.flatten(2).mT
        certainty_IR1 = weight_IRN.amax(dim=-1, keepdim=True)
        looks = self.from_object(torch.cat([appearance_IRC, certainty_IR1], dim=-1))
        code = place_code(cameras, 1, 1, looks.shape[-1], looks.device)
        looks = looks + code.repeat(batch, 1, 1)
        # Places are not mixed, so that a millimetre stays readable after a random projection.
        return torch.cat([place_features(vision.place_IR3), looks], dim=-1) + self.role_RW

    def _map_tokens(self, vision: VisionOutput, batch: int, cameras: int) -> Tensor:
        """Return the pooled feature map, (I, grid², W)."""
        pooled = F.adaptive_avg_pool2d(vision.map_ICYX, self.grid).flatten(2).mT
        code = place_code(cameras, self.grid, self.grid, self.width, pooled.device)
        tokens_INW: Tensor = self.from_map(pooled) + code.repeat(batch, 1, 1)
        return tokens_INW
