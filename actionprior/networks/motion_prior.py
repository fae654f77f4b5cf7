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
from actionprior.errors import UserError
from actionprior.flow_matching import Integrator, integrate, path_sample
from actionprior.networks.action_decoder import ActionDecoder
from actionprior.networks.trajectory_encoder import Inputs, TrajectoryEncoder


@dataclass(frozen=True)
class PriorArchitecture:
    """Sizes and switches of a ``MotionPrior``; stored in checkpoints, never repeated in recipes.

    Attributes:
        chunk_length: H, steps of a chunk (paper: 15).
        history_length: H_h, past steps that the same encoder can embed (paper: 15).
        width: token width of encoder and decoder.
        latent_width: entries of z.
        encoder_depth: transformer blocks.
        decoder_depth: modulated transformer blocks.
        heads: attention heads.
        dataset_tokens: learnable soft tokens p_k a robot.
        inputs: what the encoder reads; ``action`` is the paper's action-only prior.
        decoder_sees_state: condition the decoder on z and the current state, rather than on z
            alone (the paper).
        normalization: ``quantile`` or ``mean_std``.
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


class KnownSteps(NamedTuple):
    """Steps of a chunk that need not be sampled, in the normalised form."""

    action_BHA: Tensor  # (B, H, A)
    mask_BH: Tensor  # bool (B, H), True where known


class MotionPrior(nn.Module):
    """Encoder and flow-matching decoder over action chunks of several robots.

    State slots of the decoder's condition are those of the window's first step.
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
        )
        self.decoder = self.new_decoder()
        self.add_embodiments(embodiments)

    # ---- robots ---------------------------------------------------------------------------

    @property
    def embodiments(self) -> list[Embodiment]:
        """The robots, in the order of ``embodiment_B``."""
        return self.normalizer.embodiments

    def add_embodiments(self, embodiments: list[Embodiment]) -> None:
        """Let new robots join: fresh dataset tokens and empty statistics; old ones are kept."""
        a = self.architecture
        new = torch.randn(len(embodiments), a.dataset_tokens, a.width) * 0.02
        old = self.dataset_EPW.data
        self.dataset_EPW = nn.Parameter(torch.cat([old, new.to(old)]))
        self.normalizer.add_embodiments(embodiments)

    def index_of(self, name: str) -> int:
        """Row of a robot.

        Raises:
            UserError: unknown robot, with the known ones named.
        """
        names = [e.name for e in self.embodiments]
        if name not in names:
            raise UserError(f"embodiment {name!r} is unknown; this prior knows {names}")
        return names.index(name)

    # ---- networks -------------------------------------------------------------------------

    def new_decoder(self) -> ActionDecoder:
        """A decoder of this architecture with fresh weights."""
        a = self.architecture
        return ActionDecoder(
            a.width, a.latent_width, a.decoder_depth, a.heads, a.chunk_length, a.decoder_sees_state
        )

    def encode(self, trajectory: TrajectoryBatch) -> Tensor:
        """Unit latents z (B, Z) of windows in robot units."""
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
        """‖D(x_r, r, z) - v‖², averaged over steps inside the episode and the robots' slots.

        ``noise_BHA`` and ``r_B`` may hold k draws a window, (k·B, …): z and the trajectory are
        then repeated k times, which lowers the variance at the cost of the decoder alone.
        With ``known_B``, int64 (k·B,), so many first steps of each draw are shown without noise,
        at flow time 1, and left out of the loss (arXiv 2512.05964, Sec. 3).
        ``over_ranks`` makes of this process's count of averaged values the mean of all processes':
        then the mean of their losses is the loss of the global batch, whoever has more padding.
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

        Known steps are held where they are, and the others made to follow from them: a decoder
        that was trained on known steps is shown them at flow time 1, any other at the time and
        on the path of the rest (as inpainting does, arXiv 2201.09865, Sec. 4.1).

        Args:
            z_BZ: latents.
            state_BS: current states, robot units.
            embodiment_B: robots.
            noise_BHA: standard normal start.
            steps: integration steps.
            method: integrator.
            known: steps that are decided already.
            trained_on_known: whether ``flow_loss`` was given known steps in training.
        """
        n = self.normalizer
        state_BS = n.normalize_state(state_BS[:, None], embodiment_B)[:, 0]
        slots_B1A = n.action_mask_EA[embodiment_B][:, None, :]
        start_BHA = torch.where(slots_B1A, noise_BHA, 0.0)

        def held(x_BHA: Tensor, r_BT: Tensor) -> tuple[Tensor, Tensor]:
            if known is None:
                return x_BHA, r_BT
            r_BH = torch.where(known.mask_BH, 1.0 if trained_on_known else r_BT, r_BT)
            r_BH1 = r_BH[..., None]
            on_path_BHA = r_BH1 * known.action_BHA + (1 - r_BH1) * start_BHA
            x_BHA = torch.where(known.mask_BH[..., None], on_path_BHA, x_BHA)
            return x_BHA, r_BH if trained_on_known else r_BT

        def velocity(x_BHA: Tensor, r_B: Tensor) -> Tensor:
            x_BHA, r_BT = held(x_BHA, r_B[:, None])
            v_BHA = self.decoder(x_BHA, r_BT, z_BZ, state_BS)
            return torch.where(slots_B1A, v_BHA, 0.0)

        end_BHA, _ = held(
            integrate(velocity, start_BHA, steps, method), noise_BHA.new_ones(len(noise_BHA), 1)
        )
        return n.unnormalize_action(end_BHA, embodiment_B)

    def known_steps(
        self, committed: Committed, reference_BA: Tensor, embodiment_B: Tensor
    ) -> KnownSteps:
        """Committed actions of the chunk that is relative to ``reference_BA``, normalised."""
        mask_BH = first_steps(committed.steps_B, committed.action_BHA.shape[1])
        state_BHS = reference_BA.new_zeros(*mask_BH.shape, STATE_WIDTH)
        window = TrajectoryBatch(
            committed.action_BHA, state_BHS, reference_BA, mask_BH, embodiment_B
        )
        return KnownSteps(self.normalizer.normalize_action(window), mask_BH)

    def perturb(self, z_BZ: Tensor, noise_BZ: Tensor, sigma: float) -> Tensor:
        """Z moved along the sphere by noise of length about ``sigma`` (0 leaves it)."""
        if sigma == 0:
            return z_BZ
        return F.normalize(z_BZ + sigma / z_BZ.shape[-1] ** 0.5 * noise_BZ, dim=-1)

    # ---- plain data -----------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Plain data from which ``from_description`` builds the same module (less weights)."""
        return {
            "architecture": asdict(self.architecture),
            "embodiments": [e.to_dict() for e in self.embodiments],
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Self:
        """Inverse of ``describe``."""
        embodiments = [Embodiment.from_dict(e) for e in description["embodiments"]]
        return cls(embodiments, PriorArchitecture(**description["architecture"]))


def first_steps(count_B: Tensor, steps: int) -> Tensor:
    """Boolean (B, steps): True in the first ``count_B`` steps of each row."""
    return torch.arange(steps, device=count_B.device) < count_B[:, None]
