"""The policy that Stage 2 trains: trunk, fusion and motion prior, without Lightning.

Source: arXiv 2606.26095, Sec. III-C. Axes: B batch, H steps, A action slots, S state slots,
Z latent width, N tokens.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.batch import Committed, Observation, TrajectoryBatch
from actionprior.embodiment import Embodiment
from actionprior.embodiment.feature_groups import STATE_SLOTS
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import UserError, shown
from actionprior.flow_matching import INTEGRATORS, Integrator
from actionprior.networks.device import to_device
from actionprior.networks.fusion import Fusion, FusionInputs, HistoryMLP
from actionprior.networks.motion_prior import MotionPrior, first_steps
from actionprior.networks.places import relative_places, relative_width
from actionprior.networks.sizes import require_heads, require_size
from actionprior.networks.trunks.base import Trunk, TrunkTokens

History = Literal["off", "encoder", "mlp"]
MOST_INTEGRATION_STEPS = 1000
"""More steps than any chunk needs. Each runs the decoder, so more would stop the robot."""

_TIP = slice(STATE_SLOTS["end_effector"][0], STATE_SLOTS["end_effector"][0] + 3)
"""Place of the robot's tip in a state; zero for a robot whose state does not have it."""


class Latents(NamedTuple):
    """Latents z′ of a batch, with and without the history token."""

    with_history_BZ: Tensor
    without_history_BZ: Tensor


class PolicyNetwork(nn.Module):
    """Observation → latent z′ → chunk of actions.

    Attributes:
        embodiments: Robots, in the order of ``Observation.embodiment_B``.
        prior: Action expert. It may know further robots.
        prefix_steps: Largest number of committed steps that the decoder was trained on. More
            committed steps are kept by inpainting.
        integration_steps: Integration steps from noise to a chunk.
        integrator: Integration method: ``euler``, ``midpoint`` or ``rk4``.
        image_shape: Size of the images in training, to which a caller brings images first. None if
            it is not known, and the trunk takes images of every size.
    """

    def __init__(
        self,
        embodiments: list[Embodiment],
        trunk: Trunk,
        prior: MotionPrior,
        history: History = "encoder",
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        prefix_steps: int = 0,
        integration_steps: int = 10,
        integrator: Integrator = "euler",
        state_dropout: float = 0.0,
        image_shape: ImageShape | None = None,
    ) -> None:
        """Join the parts; fusion and history MLP start from fresh weights.

        Raises:
            UserError: ``history`` or ``integrator`` is unknown, ``prefix_steps`` is not below the
                chunk's length, a size or a share is out of range, there is no robot, or the prior
                does not know one.
        """
        super().__init__()
        a = prior.architecture
        if history not in ("off", "encoder", "mlp"):
            raise UserError(f"history is {history!r}; expected 'off', 'encoder' or 'mlp'")
        if not 0 <= prefix_steps < a.chunk_length:
            raise UserError(
                f"prefix_steps is {prefix_steps}; expected 0 to {a.chunk_length - 1}, "
                "fewer than a chunk's"
            )
        if not 0 <= state_dropout < 1:
            raise UserError(
                f"fusion.state_dropout is {state_dropout}; expected a share from 0 to below 1"
            )
        if not embodiments:
            raise UserError("embodiments is empty; a policy needs at least one robot")
        self.set_integration(integration_steps, integrator)
        for name, value, least in (("width", width, 1), ("heads", heads, 1), ("depth", depth, 0)):
            require_size(f"fusion.{name}", value, least)
        require_heads("fusion", width, heads)
        self.embodiments = embodiments
        self.trunk = trunk
        self.prior = prior
        self.cameras = max((len(e.cameras) for e in embodiments), default=0)
        self.fusion: nn.Module = trunk.own_fusion(a.width, a.latent_width, state_dropout) or Fusion(
            trunk.width,
            a.width,
            a.latent_width,
            width,
            depth,
            heads,
            state_dropout,
            self.cameras * (trunk.summary_width + relative_width(trunk.things)),
        )
        self.history_mlp = (
            HistoryMLP(a.history_length, a.latent_width, 2 * width) if history == "mlp" else None
        )
        # Not a buffer: weight averaging would average the indices.
        self.rows = torch.tensor([prior.index_of(e.name) for e in embodiments])
        self.history: History = history
        self.width, self.depth, self.heads = width, depth, heads
        self.prefix_steps = prefix_steps
        self.image_shape = image_shape

    def set_integration(self, steps: int, integrator: Integrator) -> None:
        """Set how chunks are integrated from noise.

        Raises:
            UserError: The integrator is unknown, or there are fewer than 1 or more than
                ``MOST_INTEGRATION_STEPS`` steps.
        """
        if integrator not in INTEGRATORS:
            raise UserError(
                f"integrator is {shown(integrator)}; expected one of {', '.join(INTEGRATORS)}"
            )
        require_size("integration_steps", steps, 1, MOST_INTEGRATION_STEPS)
        self.integration_steps = steps
        self.integrator: Integrator = integrator

    @property
    def chunk_length(self) -> int:
        """H, steps of a predicted chunk."""
        return self.prior.architecture.chunk_length

    @property
    def history_length(self) -> int:
        """H_h, steps of the past that the policy reads."""
        return self.prior.architecture.history_length

    @property
    def recorded_ranges(self) -> dict[str, RecordedRanges]:
        """What the training data held, by robot; empty in files of earlier versions."""
        return self.prior.normalizer.ranges

    # ---- robots ---------------------------------------------------------------------------

    def to_prior_rows(self, trajectory: TrajectoryBatch) -> TrajectoryBatch:
        """Replace the data's robot indices by the prior's rows."""
        return trajectory._replace(embodiment_B=self.prior_rows(trajectory.embodiment_B))

    def prior_rows(self, embodiment_B: Tensor) -> Tensor:
        """Return the prior's rows of the data's robot indices."""
        return to_device(self.rows, embodiment_B.device)[embodiment_B]

    # ---- latents --------------------------------------------------------------------------

    def latents(self, observation: Observation) -> Latents:
        """Compute z′ with and without history, from one pass of the trunk."""
        inputs = self._fusion_inputs(observation)
        if self.history == "off":
            without_BZ = self.fusion(*inputs)
            return Latents(without_BZ, without_BZ)
        known_B = torch.cat([inputs.history_mask_B, torch.zeros_like(inputs.history_mask_B)])
        with_BZ, without_BZ = self.fusion(*inputs._replace(history_mask_B=known_B)).chunk(2)
        return Latents(with_BZ, without_BZ)

    def latent(self, observation: Observation) -> Tensor:
        """Compute z′ (B, Z), with the history of rows that have one."""
        z_BZ: Tensor = self.fusion(*self._fusion_inputs(observation))
        return z_BZ

    def _fusion_inputs(self, observation: Observation) -> FusionInputs:
        given = (observation.images_BCKYX, observation.camera_mask_BC, list(observation.task))
        # Only trunks with a frozen part take features.
        known = () if observation.features_BCF is None else (observation.features_BCF,)
        tokens = self.trunk(*given, *known)
        robots_B = self.prior_rows(observation.embodiment_B)
        dataset_BPW = self.prior.dataset_EPW[robots_B]
        normalize = self.prior.normalizer.normalize_state
        state_BS = normalize(observation.state_BS[:, None], robots_B)[:, 0]
        history = self.to_prior_rows(observation.history)
        any_B = history.step_mask_BH.any(dim=1)
        if self.history == "off":
            history_BZ = dataset_BPW.new_zeros(len(any_B), self.prior.architecture.latent_width)
            any_B = torch.zeros_like(any_B)
        else:
            history_BZ = self._history_token(history)
        return FusionInputs(
            tokens,
            dataset_BPW,
            state_BS,
            history_BZ,
            self._summary(tokens, observation),
            any_B,
        )

    def _summary(self, tokens: TrunkTokens, observation: Observation) -> Tensor | None:
        """Join the summaries of the cameras, (B, cameras · F), with zeros for absent cameras."""
        parts = [] if tokens.summary_BCF is None else [tokens.summary_BCF]
        if tokens.thing_BCR3 is not None:
            tip_B3 = observation.state_BS[:, _TIP]
            seen_BC1 = observation.camera_mask_BC[..., None]
            parts.append(relative_places(tokens.thing_BCR3, tip_B3) * seen_BC1)
        if not parts or not self.cameras:
            return None
        summary_BCF = torch.cat(parts, dim=-1)
        missing = self.cameras - summary_BCF.shape[1]
        return F.pad(summary_BCF, (0, 0, 0, missing)).flatten(1)

    def _history_token(self, history: TrajectoryBatch) -> Tensor:
        if self.history_mlp is None:
            return self.prior.encode(history)
        n = self.prior.normalizer
        state_BHS = n.normalize_state(history.state_BHS, history.embodiment_B)
        token: Tensor = self.history_mlp(
            n.normalize_action(history), state_BHS, history.step_mask_BH
        )
        return token

    # ---- acting ---------------------------------------------------------------------------

    def decode(
        self,
        z_BZ: Tensor,
        observation: Observation,
        noise_BHA: Tensor,
        committed: Committed | None = None,
    ) -> Tensor:
        """Decode latents to chunks (B, H, A) in relative form and robot units.

        Args:
            z_BZ: Latents.
            observation: Observation, of which robot, state and reference are used.
            noise_BHA: Standard normal noise.
            committed: First actions of the chunk that are being executed already.
        """
        robots_B = self.prior_rows(observation.embodiment_B)
        known = None
        if committed is not None:
            known = self.prior.known_steps(committed, observation.reference_BA, robots_B)
        return self.prior.sample_relative(
            z_BZ,
            observation.state_BS,
            robots_B,
            noise_BHA,
            self.integration_steps,
            self.integrator,
            known,
            committed is not None and int(committed.steps_B.max()) <= self.prefix_steps,
        )

    @torch.no_grad()
    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        """Predict the commands, (B, H, A) in robot units, from standard normal noise.

        Args:
            observation: Observation, with the history.
            noise_BHA: Noise (B, H, A); the same noise gives the same chunk.
            committed: First actions of the chunk that are being executed already. They are
                returned unchanged, and the others continue them.
        """
        relative_BHA = self.decode(self.latent(observation), observation, noise_BHA, committed)
        robots_B = self.prior_rows(observation.embodiment_B)
        normalizer = self.prior.normalizer
        action_BHA = normalizer.absolute_action(relative_BHA, observation.reference_BA, robots_B)
        if committed is None:
            return action_BHA
        # Normalising and back would change last bits, and angles by full turns.
        known_BH = first_steps(committed.steps_B, action_BHA.shape[1])
        return torch.where(known_BH[..., None], committed.action_BHA, action_BHA)
