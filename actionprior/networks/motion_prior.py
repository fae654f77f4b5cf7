"""The action expert that both stages share: encoder, decoder, dataset tokens, normaliser.

Source: arXiv 2606.26095, Sec. III. Axes: B batch, H steps, A action slots, S state slots,
P soft dataset tokens, W width, Z latent width, E embodiments.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.batch import Committed, TrajectoryBatch
from actionprior.embodiment import STATE_WIDTH, Embodiment
from actionprior.embodiment.normalization import Law, Normalizer
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import UserError
from actionprior.flow_matching import Integrator, integrate, integration_times, path_sample
from actionprior.networks.action_decoder import ActionDecoder
from actionprior.networks.decoder_sampling import velocity_fields
from actionprior.networks.language_blocks import LanguageSize
from actionprior.networks.sizes import require_heads, require_size
from actionprior.networks.trajectory_encoder import Inputs, TrajectoryEncoder


@dataclass(frozen=True)
class PriorArchitecture:
    """Sizes and switches of a ``MotionPrior``; Stage 2 reads them from the checkpoint of Stage 1.

    Attributes:
        chunk_length: Steps H of a chunk (paper: 15).
        history_length: Steps H_h of the past that the encoder can embed (paper: 15).
        width: Token width of encoder and decoder.
        latent_width: Number of entries of the latent z.
        encoder_depth: Number of the encoder's transformer blocks.
        decoder_depth: Number of the decoder's modulated transformer blocks.
        heads: Number of attention heads of encoder and decoder.
        dataset_tokens: Number of learnable soft tokens p_k per robot.
        inputs: Input of the encoder, ``action_state`` or ``action`` (the paper's action-only
            prior).
        decoder_sees_state: Condition the decoder on z and the current state. False is the paper's
            decoder, which is conditioned only on z.
        normalization: Law of the normalisation, ``quantile`` or ``mean_std``.
        init_from: Language model from whose blocks encoder and decoder start (paper: Qwen3-0.6B):
            ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER``, both also without the prefix. It decides
            width, heads and depths.
        init_layers: Number of the language model's first layers that are used; 0: all.
        language: Sizes of a language model's blocks. Only checkpoints set it.

    Raises:
        UserError: A size is below 1, or the width is not a multiple of the heads.
    """

    chunk_length: int = 15
    history_length: int = 15
    width: int = 128
    latent_width: int = 32
    encoder_depth: int = 2
    decoder_depth: int = 3
    heads: int = 4
    dataset_tokens: int = 2
    inputs: Inputs = "action_state"
    decoder_sees_state: bool = False
    normalization: Law = "quantile"
    init_from: str = ""
    init_layers: int = 0
    language: LanguageSize | None = None

    def __post_init__(self) -> None:
        for name in ("chunk_length", "history_length", "width", "latent_width", "heads"):
            require_size(f"architecture.{name}", getattr(self, name), 1)
        for name in ("encoder_depth", "decoder_depth", "dataset_tokens"):
            require_size(f"architecture.{name}", getattr(self, name), 0)
        require_size("architecture.init_layers", self.init_layers, 0)
        if self.language is None:  # otherwise heads have a width of their own
            require_heads("architecture", self.width, self.heads)

    @classmethod
    def from_dict(cls, recorded: dict[str, Any]) -> Self:
        """Build an architecture from plain data (``dataclasses.asdict``)."""
        language = recorded.get("language")
        sizes = None if language is None else LanguageSize(**language)
        return cls(**recorded | {"language": sizes})


class KnownSteps(NamedTuple):
    """Steps of a chunk that are known and need not be sampled, normalised."""

    action_BHA: Tensor  # (B, H, A)
    mask_BH: Tensor  # bool (B, H), True where known


class MotionPrior(nn.Module):
    """Encoder and flow-matching decoder over action chunks of several robots.

    The decoder is conditioned on the state of the window's first step.
    """

    def __init__(self, embodiments: list[Embodiment], architecture: PriorArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.normalizer = Normalizer([], a.normalization, a.chunk_length)
        self.dataset_EPW = nn.Parameter(torch.zeros(0, a.dataset_tokens, a.width))
        self.encoder = TrajectoryEncoder(
            a.width,
            a.latent_width,
            a.encoder_depth,
            a.heads,
            max(a.chunk_length, a.history_length),
            a.inputs,
            a.language,
        )
        self.decoder = self.new_decoder()
        self.add_embodiments(embodiments)

    # ---- robots ---------------------------------------------------------------------------

    @property
    def embodiments(self) -> list[Embodiment]:
        """Robots, in the order of ``embodiment_B``."""
        return self.normalizer.embodiments

    def add_embodiments(self, embodiments: list[Embodiment]) -> None:
        """Add robots with fresh dataset tokens and empty statistics; others are kept."""
        a = self.architecture
        new = torch.randn(len(embodiments), a.dataset_tokens, a.width) * 0.02
        old = self.dataset_EPW.data
        self.dataset_EPW = nn.Parameter(torch.cat([old, new.to(old)]))
        self.normalizer.add_embodiments(embodiments)

    def index_of(self, name: str) -> int:
        """Return a robot's row.

        Raises:
            UserError: The robot is unknown; the message names the known ones.
        """
        names = [e.name for e in self.embodiments]
        if name not in names:
            raise UserError(f"embodiment {name!r} is unknown; this prior knows {names}")
        return names.index(name)

    # ---- networks -------------------------------------------------------------------------

    def new_decoder(self) -> ActionDecoder:
        """Build a decoder of this architecture with fresh weights."""
        a = self.architecture
        return ActionDecoder(
            a.width,
            a.latent_width,
            a.decoder_depth,
            a.heads,
            a.chunk_length,
            a.decoder_sees_state,
            a.language,
        )

    def encode(self, trajectory: TrajectoryBatch) -> Tensor:
        """Encode windows in robot units as unit latents z (B, Z)."""
        n = self.normalizer
        z_BZ: Tensor = self.encoder(
            n.normalize_action(trajectory),
            n.normalize_state(trajectory.state_BHS, trajectory.embodiment_B),
            trajectory.step_mask_BH,
            self.dataset_EPW[trajectory.embodiment_B],
        )
        return z_BZ

    def flow_loss(
        self,
        z_BZ: Tensor,
        trajectory: TrajectoryBatch,
        noise_BHA: Tensor,
        r_B: Tensor,
        known_B: Tensor | None = None,
        over_ranks: Callable[[Tensor], Tensor] = lambda count: count,
    ) -> Tensor:
        """Compute ‖D(x_r, r, z) - v‖², averaged over steps in the episode and the robots' slots.

        Args:
            z_BZ: Latents.
            trajectory: Recorded windows.
            noise_BHA: Standard normal noise. It may hold k draws per window, (k·B, …). Latents
                and windows are then repeated k times, which lowers the variance at the cost of
                only the decoder.
            r_B: Flow times, (k·B,).
            known_B: int64 (k·B,), number of first steps of each draw that the decoder sees
                without noise, at flow time 1, and that do not count in the loss
                (arXiv 2512.05964, Sec. 3); None: 0.
            over_ranks: Averages a count over all processes. With it, the mean of the processes'
                losses is the loss of the global batch, even if their padding differs.
        """
        repeats = len(r_B) // len(z_BZ)
        n = self.normalizer
        mask_BHA = n.action_mask(trajectory).repeat(repeats, 1, 1)
        action_BHA = n.normalize_action(trajectory).repeat(repeats, 1, 1)
        state_BS = n.normalize_state(trajectory.state_BHS[:, :1], trajectory.embodiment_B)[:, 0]
        sample = path_sample(action_BHA, torch.where(mask_BHA, noise_BHA, 0.0), r_B)
        x_BHA, r_BT = sample.x_r, r_B[:, None]
        if known_B is not None:
            known_BH = first_steps(known_B, x_BHA.shape[1])
            x_BHA = torch.where(known_BH[..., None], action_BHA, x_BHA)
            r_BT = torch.where(known_BH, 1.0, r_BT)
            mask_BHA = mask_BHA & ~known_BH[..., None]
        velocity_BHA = self.decoder(
            x_BHA,
            r_BT,
            z_BZ.repeat(repeats, 1),
            state_BS.repeat(repeats, 1),
            trajectory.step_mask_BH.repeat(repeats, 1),
        )
        error_BHA = (velocity_BHA - sample.velocity).square()
        count = over_ranks(mask_BHA.sum().float())
        return torch.where(mask_BHA, error_BHA, 0.0).sum() / count.clamp(min=1)

    @torch.no_grad()
    def sample_relative(
        self,
        z_BZ: Tensor,
        state_BS: Tensor,
        embodiment_B: Tensor,
        noise_BHA: Tensor,
        steps: int,
        method: Integrator = "euler",
        known: KnownSteps | None = None,
        trained_on_known: bool = False,
    ) -> Tensor:
        """Integrate noise to a chunk in relative form and robot units, (B, H, A).

        Known steps stay unchanged, and the others continue them. A decoder that was trained on
        known steps sees them at flow time 1. Any other decoder sees them at the flow time of the
        others, on their path from noise (inpainting, arXiv 2201.09865, Sec. 4.1).

        Args:
            z_BZ: Latents.
            state_BS: Current states in robot units.
            embodiment_B: Rows of the robots.
            noise_BHA: Standard normal noise to start from.
            steps: Number of integration steps.
            method: Integration method.
            known: Steps that are known already.
            trained_on_known: True if ``flow_loss`` had known steps in training.
        """
        n = self.normalizer
        state_BS = n.normalize_state(state_BS[:, None], embodiment_B)[:, 0]
        slots_B1A = n.action_mask_EA[embodiment_B][:, None, :]
        start_BHA = torch.where(slots_B1A, noise_BHA, 0.0)

        r_KBT = integration_times(steps, method, start_BHA)[:, None, None]
        r_KBT = r_KBT.expand(-1, len(start_BHA), 1)
        if known is not None and trained_on_known:
            r_KBT = torch.where(known.mask_BH, 1.0, r_KBT)
        fields = velocity_fields(self.decoder, r_KBT, z_BZ, state_BS)

        def with_known(x_BHA: Tensor, r_B: Tensor) -> Tensor:
            if known is None:
                return x_BHA
            r_B11 = 1.0 if trained_on_known else r_B[:, None, None]
            on_path_BHA = r_B11 * known.action_BHA + (1 - r_B11) * start_BHA
            return torch.where(known.mask_BH[..., None], on_path_BHA, x_BHA)

        def velocity(x_BHA: Tensor, r_B: Tensor) -> Tensor:
            v_BHA = next(fields)(with_known(x_BHA, r_B))
            return torch.where(slots_B1A, v_BHA, 0.0)

        end_BHA = with_known(
            integrate(velocity, start_BHA, steps, method), start_BHA.new_ones(len(start_BHA))
        )
        return n.unnormalize_action(end_BHA, embodiment_B)

    def known_steps(
        self, committed: Committed, reference_BA: Tensor, embodiment_B: Tensor
    ) -> KnownSteps:
        """Normalise committed actions, relative to ``reference_BA``."""
        mask_BH = first_steps(committed.steps_B, committed.action_BHA.shape[1])
        state_BHS = reference_BA.new_zeros(*mask_BH.shape, STATE_WIDTH)
        window = TrajectoryBatch(
            committed.action_BHA, state_BHS, reference_BA, mask_BH, embodiment_B
        )
        return KnownSteps(self.normalizer.normalize_action(window), mask_BH)

    def perturb(self, z_BZ: Tensor, noise_BZ: Tensor, sigma: float) -> Tensor:
        """Move latents along the sphere by noise of length about ``sigma``; 0 is a no-op."""
        if sigma == 0:
            return z_BZ
        return F.normalize(z_BZ + sigma / z_BZ.shape[-1] ** 0.5 * noise_BZ, dim=-1)

    # ---- plain data -----------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Describe the module, without its weights, as plain data for ``from_description``."""
        ranges = {name: r.to_plain() for name, r in self.normalizer.ranges.items()}
        return {
            "architecture": asdict(self.architecture),
            "embodiments": [e.to_dict() for e in self.embodiments],
            **({"ranges": ranges} if ranges else {}),
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Self:
        """Build a module with fresh weights from what ``describe`` returned."""
        embodiments = [Embodiment.from_dict(e) for e in description["embodiments"]]
        prior = cls(embodiments, PriorArchitecture.from_dict(description["architecture"]))
        for name, plain in (description.get("ranges") or {}).items():
            prior.normalizer.ranges[name] = RecordedRanges.from_plain(plain)
        return prior


def first_steps(count_B: Tensor, steps: int) -> Tensor:
    """Return a boolean mask (B, steps), True in the first ``count_B`` steps of each row."""
    return torch.arange(steps, device=count_B.device) < count_B[:, None]
