"""The interface of vision-language trunks, and helpers that trunks share.

Axes: B batch, C cameras, K = 3 colours, Y rows, X columns, N tokens, W token width.
"""

import inspect
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.errors import UserError
from actionprior.files.weights import load_weights, wrong_shape
from actionprior.networks.trunks.frozen_part import FrozenPart
from actionprior.networks.trunks.instruction_signs import InstructionSigns


class TrunkTokens(NamedTuple):
    """Image tokens of all cameras, then text tokens."""

    tokens_BNW: Tensor  # (B, N, W)
    mask_BN: Tensor  # bool (B, N), True: attend
    summary_BCF: Tensor | None = None  # (B, C, F), a vector of each camera; 0 for absent ones
    place_BNA: Tensor | None = None  # int64 (B, N, A), position of each token on A axes
    thing_BCR3: Tensor | None = None  # (B, C, R, 3), places of R things [m, robot base frame]


class Trunk(nn.Module, ABC):
    """Base class of trunks: images of all cameras and an instruction become one token sequence.

    A trunk resizes, normalises and tokenises its own inputs. A checkpoint of a policy records
    ``init_args()`` and the state dict; :meth:`from_init_args` and ``load_state_dict`` rebuild the
    trunk from them without any other file and without a download.

    A subclass of your own works in every verb: docs/trunks.md shows one.

    Attributes:
        training_args: Names in ``init_args()`` that only matter for training. A recipe may
            change them when it resumes from or tests a checkpoint.
        pretrained_args: Names in ``init_args()`` that say where the first weights come from, or
            what was found there. A checkpoint makes them unnecessary, and they are not compared
            with a recipe's.
        width: Width W of a token.
        summary_width: Width F of the vector that summarises a camera, which the policy reads
            directly, without attention; 0: the trunk gives none.
        things: Number R of things whose places each camera gives, which the policy reads relative
            to the robot's tip; 0: the trunk gives none.
        lr_scale: Learning rate of the pretrained weights, relative to the module's; 0: frozen.
        blind: True if images pass through random weights that are not trained.
    """

    training_args: ClassVar[frozenset[str]] = frozenset({"freeze", "lr_scale"})
    pretrained_args: ClassVar[frozenset[str]] = frozenset({"pretrained", "weights"})

    width: int
    summary_width: int = 0
    things: int = 0
    lr_scale: float
    blind: bool = False

    @abstractmethod
    def forward(self, images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> TrunkTokens:
        """Compute the tokens.

        Args:
            images_BCKYX: Images, uint8 (B, C, 3, Y, X), of any size.
            camera_mask_BC: bool (B, C), False where a row lacks this camera. The tokens of a
                missing camera are masked, and its pixels change no other token.
            task: B instructions.
        """

    # ---- checkpoints ----------------------------------------------------------------------

    @abstractmethod
    def init_args(self) -> dict[str, Any]:
        """Return plain data that rebuilds this trunk, without pretrained weights.

        Plain data are numbers, strings, booleans, None, and lists and dicts of them. Checkpoints
        record the result.
        """

    @classmethod
    def constructor_args(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Convert what ``init_args()`` returned to arguments of the constructor.

        By default they are the same.
        """
        return dict(recorded)

    @classmethod
    def from_init_args(cls, recorded: Mapping[str, Any]) -> Self:
        """Build a trunk with fresh weights from what ``init_args()`` returned.

        Raises:
            UserError: An argument is unknown, or a required one is missing.
        """
        return cls(**cls._bound(recorded))

    @classmethod
    def _bound(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        arguments = cls.constructor_args(recorded)
        try:
            inspect.signature(cls).bind(**arguments)
        except TypeError as error:
            raise UserError(
                f"trunk {cls.__name__} cannot be built from its recorded arguments "
                f"{sorted(recorded)}: {error}; let its constructor take what its init_args() gives"
            ) from None
        return arguments

    def require_rebuildable(self) -> None:
        """Check that a checkpoint can record this trunk and build it again.

        Raises:
            UserError: ``init_args()`` holds more than plain data, or arguments that the
                constructor does not take.
        """
        for name, value in self.init_args().items():
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                raise UserError(
                    f"trunk {type(self).__name__}: init_args()[{name!r}] is a "
                    f"{type(value).__name__}, which a checkpoint cannot record; expected plain "
                    "data: numbers, strings, lists and dicts"
                ) from None
        self._bound(self.init_args())

    def differing_args(self, recorded: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Compare a checkpoint's trunk of the same class with this one.

        Args:
            recorded: What the ``init_args()`` of the checkpoint's trunk returned.

        Returns:
            Each argument that changes what the weights mean, as (recorded value, own value).
        """
        mine, parameters = self.init_args(), inspect.signature(type(self)).parameters
        # Earlier versions did not record arguments that are new since then.
        plain = (bool, int, float, str, type(None))
        defaults = {n: p.default for n, p in parameters.items() if isinstance(p.default, plain)}
        return {
            name: (value, mine[name])
            for name, value in {**defaults, **recorded}.items()
            if name not in self.training_args | self.pretrained_args
            and name in mine
            and value != mine[name]
        }

    @classmethod
    def args_for_checkpoint(
        cls, arguments: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Change a recipe's constructor arguments so that a checkpoint gives all the weights.

        Args:
            arguments: The recipe's constructor arguments.
            recorded: What the ``init_args()`` of the checkpoint's trunk returned.

        Returns:
            The arguments, with ``pretrained_args`` as the checkpoint records them, so that no
            pretrained weights are looked for.
        """
        plain = cls.without_sources(recorded)
        known = cls.pretrained_args & arguments.keys() & plain.keys()
        return {**arguments, **{name: plain[name] for name in known}}

    @classmethod
    def without_sources(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Return recorded arguments that name no source of weights, which come with the record.

        A file could name any source, and building the trunk would ask a network for it.
        """
        return {
            name: "" if name in cls.pretrained_args and isinstance(value, str) else value
            for name, value in recorded.items()
        }

    # ---- training and acting --------------------------------------------------------------

    def own_fusion(
        self, prior_width: int, latent_width: int, state_dropout: float
    ) -> nn.Module | None:
        """Return a network that reads z′ from the tokens, for a trunk that brings its own.

        It takes the arguments of ``actionprior.networks.fusion.Fusion.forward``. By default there
        is none, and the policy has a small transformer.

        Args:
            prior_width: Width of the prior's soft tokens.
            latent_width: Number of entries of the latent.
            state_dropout: Share of observations whose state is hidden while training.
        """
        return None

    def instruction_signs(self, task: list[str]) -> list[InstructionSigns]:
        """Return what the trunk reads of instructions, for warnings. Empty if it is not known."""
        return []

    def frozen_part(self) -> FrozenPart | None:
        """Return the part below everything that trains, whose features Stage 2 may cache.

        By default there is none. A trunk that returns one has a further argument of ``forward``:
        ``features_BCF``, (B, C, F). If it is given, the images have no rows and columns.
        """
        return None

    def constant_buffers(self) -> set[str]:
        """Return the names of buffers that no training step changes, the same on every rank.

        Data-parallel training does not send them. By default they are the frozen part's.
        """
        part = self.frozen_part()
        constant = set() if part is None else {id(buffer) for buffer in part.module.buffers()}
        return {name for name, buffer in self.named_buffers() if id(buffer) in constant}

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Yield the trainable parameters in groups, each with its factor on the learning rate.

        By default there is one group, at ``lr_scale``.
        """
        yield [p for p in self.parameters() if p.requires_grad], self.lr_scale

    def merge(self) -> None:
        """Fold training-only weights (LoRA) for inference. No-op by default.

        The output stays the same, and ``init_args()`` keeps describing the state dict.
        """


TrunkChoice = Trunk | type[Trunk] | None
"""How a caller chooses the trunk of a policy that is loaded.

None: one of actionprior's trunks, by its recorded name. A class is built from the recorded
arguments. A trunk that is built already only gets the recorded weights.
"""


def resize(images_IKYX: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize uint8 (I, 3, any, any) to float (I, 3, *size) in [0, 1], without cropping.

    Args:
        images_IKYX: Images.
        size: Rows and columns of the result.
        mode: Filter, ``bilinear`` or ``bicubic``. Both average over what becomes one pixel.
    """
    x = images_IKYX.float() / 255
    if x.shape[-2:] == size:
        return x
    x = F.interpolate(x, size, mode=mode, antialias=True, align_corners=False)
    return x.clamp(0, 1) if mode == "bicubic" else x


def read_weights(module: nn.Module, file: str) -> None:
    """Load a safetensors file into ``module``; every name and shape must match.

    Raises:
        UserError: The file is missing, damaged, or of another architecture.
    """
    if not Path(file).is_file():
        raise UserError(f"trunk weights {file} do not exist; make them with `lightning ground`")
    state = load_weights(Path(file))
    if wrong := wrong_shape(state, module.state_dict()):
        name, found, expected = wrong
        raise UserError(
            f"trunk weights {file} are of another architecture: {name} is "
            f"{'missing' if found is None else found} in the file, "
            f"{'unknown' if expected is None else expected} in the trunk"
        )
    module.load_state_dict(state)


def check_inputs(images_BCKYX: Tensor, camera_mask_BC: Tensor, task: list[str]) -> None:
    """Check types and shapes of a trunk's inputs.

    Raises:
        ValueError: Images are not uint8 (B, C, 3, Y, X), the mask is not (B, C), or there are
            not B instructions.
    """
    if images_BCKYX.dtype != torch.uint8 or images_BCKYX.dim() != 5 or images_BCKYX.shape[2] != 3:
        raise ValueError(
            f"images are {images_BCKYX.dtype} of shape {tuple(images_BCKYX.shape)}, "
            "expected torch.uint8 (batch, cameras, 3, rows, columns)"
        )
    if camera_mask_BC.shape != images_BCKYX.shape[:2]:
        raise ValueError(
            f"camera mask has shape {tuple(camera_mask_BC.shape)}, "
            f"expected (batch, cameras) = {tuple(images_BCKYX.shape[:2])}"
        )
    if len(task) != len(images_BCKYX):
        raise ValueError(f"{len(task)} instructions came with {len(images_BCKYX)} images")


def place_code(cameras: int, rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Return the sine-cosine codes of places, shape (cameras, rows · columns, width).

    Camera, row and column take a third of the width each; frequencies are spaced as in
    arXiv 1706.03762, Sec. 3.5. Fixed codes work for any number of cameras and need no training in
    a frozen trunk.
    """
    part = width // 6
    rate = torch.exp(torch.linspace(0.0, -math.log(100.0), part, device=device))

    def code(count: int) -> Tensor:
        angle = torch.arange(count, device=device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    shape = (cameras, rows, columns, 2 * part)
    camera = code(cameras)[:, None, None].expand(shape)
    row = code(rows)[None, :, None].expand(shape)
    column = code(columns)[None, None].expand(shape)
    full = torch.cat([camera, row, column], dim=-1).flatten(1, 2)
    return F.pad(full, (0, width - full.shape[-1]))


def join_tokens(
    image_BCNW: Tensor, camera_mask_BC: Tensor, text_BLW: Tensor, text_mask_BL: Tensor
) -> TrunkTokens:
    """Concatenate image tokens (B, C, N, W) and text tokens (B, L, W) with their masks."""
    image_mask = camera_mask_BC.bool()[:, :, None].expand(image_BCNW.shape[:3]).flatten(1)
    return TrunkTokens(
        tokens_BNW=torch.cat([image_BCNW.flatten(1, 2), text_BLW], dim=1),
        mask_BN=torch.cat([image_mask, text_mask_BL], dim=1),
    )
