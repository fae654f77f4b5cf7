"""The policy that Stage 2 trains: trunk, fusion and motion prior, without Lightning.

Source: arXiv 2606.26095, Sec. III-C. Axes: B batch, H steps, A action slots, S state slots,
Z latent width, N tokens.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from actionprior.batch import Committed, Observation, TrajectoryBatch
from actionprior.embodiment import Embodiment
from actionprior.errors import UserError
from actionprior.flow_matching import Integrator
from actionprior.networks.device import to_device
from actionprior.networks.fusion import Fusion, HistoryMLP
from actionprior.networks.motion_prior import MotionPrior, first_steps
from actionprior.networks.trunks.base import Trunk

History = Literal["off", "encoder", "mlp"]


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
    ) -> None:
        """Join the parts; fusion and history MLP start from fresh weights.

        Raises:
            UserError: ``history`` is unknown, ``prefix_steps`` is not below the chunk's length,
                or the prior does not know a robot.
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
        self.embodiments = embodiments
        self.trunk = trunk
        self.prior = prior
        self.fusion = Fusion(trunk.width, a.width, a.latent_width, width, depth, heads)
        self.history_mlp = (
            HistoryMLP(a.history_length, a.latent_width, 2 * width) if history == "mlp" else None
        )
        # Not a buffer: weight averaging would average the indices.
        self.rows = torch.tensor([prior.index_of(e.name) for e in embodiments])
        self.history: History = history
        self.width, self.depth, self.heads = width, depth, heads
        self.prefix_steps = prefix_steps
        self.integration_steps = integration_steps
        self.integrator: Integrator = integrator

    @property
    def chunk_length(self) -> int:
        """H, steps of a predicted chunk."""
        return self.prior.architecture.chunk_length

    @property
    def history_length(self) -> int:
        """H_h, steps of the past that the policy reads."""
        return self.prior.architecture.history_length

    # ---- robots ---------------------------------------------------------------------------

    def to_prior_rows(self, trajectory: TrajectoryBatch) -> TrajectoryBatch:
        """Replace the data's robot indices by the prior's rows."""
        return trajectory._replace(embodiment_B=self.prior_rows(trajectory.embodiment_B))

    def prior_rows(self, embodiment_B: Tensor) -> Tensor:
        """Return the prior's rows of the data's robot indices."""
        return to_device(self.rows, embodiment_B.device)[embodiment_B]

    # ---- latents --------------------------------------------------------------------------

    def latents(self, observation: Observation) -> Latents:
        """Compute z′ with and without history; the trunk runs once and the fusion twice."""
        inputs = self._fusion_inputs(observation)
        if self.history == "off":
            without_BZ = self.fusion(*inputs)
            return Latents(without_BZ, without_BZ)
        known_B = torch.cat([inputs.history_mask_B, torch.zeros_like(inputs.history_mask_B)])
        with_BZ, without_BZ = self.fusion(*inputs[:-1], known_B).chunk(2)
        return Latents(with_BZ, without_BZ)

    def latent(self, observation: Observation) -> Tensor:
        """Compute z′ (B, Z), with the history of rows that have one."""
        z_BZ: Tensor = self.fusion(*self._fusion_inputs(observation))
        return z_BZ

    def _fusion_inputs(self, observation: Observation) -> "_FusionInputs":
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
        return _FusionInputs(
            tokens.tokens_BNW, tokens.mask_BN, dataset_BPW, state_BS, history_BZ, any_B
        )

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


class _FusionInputs(NamedTuple):
    """Arguments of ``Fusion.forward``."""

    tokens_BNW: Tensor
    mask_BN: Tensor
    dataset_BPW: Tensor
    state_BS: Tensor
    history_BZ: Tensor
    history_mask_B: Tensor
