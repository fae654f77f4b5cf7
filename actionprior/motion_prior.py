"""Stage 1: learn to move from trajectories, without images or language.

Source: arXiv 2606.26095, Sec. III-B. Axes: B batch, H steps, A action slots, Z latent width.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from actionprior.batch import TrajectoryBatch
from actionprior.checkpoints import keys
from actionprior.checkpoints.match import require_same_prior
from actionprior.checkpoints.prior import describe_into, load_prior, load_starting_prior
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.embodiment.normalization import Normalizer
from actionprior.networks.device import to_device
from actionprior.networks.language_start import new_prior
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.training.embodied_data import data_of_run, fit_statistics
from actionprior.training.flow_noise import EVALUATION_KEY, FlowNoise
from actionprior.training.metrics import (
    BASELINES,
    COPY_LAST,
    UNTRAINED,
    HeldOutErrors,
    copied_first_action,
)
from actionprior.training.settings import FlowSettings, OptimizerSettings
from actionprior.training.stage import StageModule


class MotionPriorModule(StageModule):
    """Train encoder and flow decoder together: L_recon = ‖D(x_r, r, z) - v‖², z = Enc(τ).

    Logged while training: ``train/loss``, ``train/grad_norm``, ``train/learning_rate``,
    ``train/skipped_steps`` and ``train/share/<robot>``, the share of the windows so far.

    Logged in validation: ``val/loss`` and, per robot, held-out reconstruction errors:

    - ``val/<robot>/mae_<group>_<unit>``: the error in the robot's units;
    - ``val/<robot>/copy_last_mae_…``: a baseline that repeats the chunk's first action. It knows
      one step more than a baseline that repeats the action before the chunk;
    - ``val/<robot>/untrained_mae_…``: an untrained decoder, which has zero velocity and returns
      its noise;
    - ``val/<robot>/error_over_copy_last`` and ``…/error_over_untrained``: unit-free ratios.
    """

    batch_type, stage = TrajectoryBatch, 1

    def __init__(
        self,
        embodiments: list[dict[str, Any]],
        architecture: PriorArchitecture | None = None,
        prior_checkpoint: str = "",
        learning_rate: float = 1e-3,
        optimizer: OptimizerSettings = OptimizerSettings(),
        flow: FlowSettings = FlowSettings(),
    ) -> None:
        """Create the module, and read the prior that it continues.

        Args:
            embodiments: Robots as plain data (``Embodiment.to_dict``); the command line takes them
                from the data.
            architecture: Sizes and switches of the prior; by default those of
                ``prior_checkpoint``.
            prior_checkpoint: Checkpoint of either stage, from whose prior training starts. Its
                robots keep their dataset tokens and statistics, and new robots join.
            learning_rate: Peak learning rate of AdamW (paper: 1e-4 with 0.6 B parameters).
            optimizer: Schedule, weight decay and skipped steps.
            flow: Training and integration of the flow.

        Raises:
            CheckpointError: ``prior_checkpoint`` cannot be used, has another architecture, or
                knows another robot of the same name.
        """
        super().__init__(learning_rate, optimizer)
        robots = [Embodiment.from_dict(e) for e in embodiments]
        self.prior_checkpoint = prior_checkpoint
        if prior_checkpoint:
            self.prior = load_starting_prior(prior_checkpoint, robots, architecture, may_join=True)
        else:
            self.prior = new_prior(robots, architecture)
        self.embodiments = robots
        # Not a buffer: weight averaging would average the indices.
        self.rows = torch.tensor([self.prior.index_of(robot.name) for robot in robots])
        self.flow = flow
        self.errors = HeldOutErrors(self.prior.embodiments, BASELINES)

    @property
    def normalizer(self) -> Normalizer:
        """Statistics of the robots."""
        return self.prior.normalizer

    def decays(self, parameter: torch.nn.Parameter) -> bool:
        """See :class:`StageModule`: tokens of robots without data do not change."""
        absent = len(self.embodiments) < len(self.prior.embodiments)
        return super().decays(parameter) and not (absent and parameter is self.prior.dataset_EPW)

    # ---- life cycle -----------------------------------------------------------------------

    def configure_model(self) -> None:
        """Fit the statistics of a new run; those of a loaded checkpoint replace them.

        This is not in ``setup``, because weight averaging copies the module before ``setup``.
        """
        data = data_of_run(self, self.prior.architecture, self.prior_checkpoint)
        fit_statistics(
            self,
            self.prior.normalizer,
            lambda: self._to_prior_rows(data.statistics_sample()),
        )
        super().configure_model()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a prior from a checkpoint of either stage, in evaluation mode.

        Raises:
            CheckpointError: The file is missing or damaged, or holds no prior.
        """
        prior = load_prior(path)
        module = cls([e.to_dict() for e in prior.embodiments], prior.architecture)
        module.prior, module.prior_checkpoint = prior, str(path)
        return module.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the prior in the checkpoint, so that recipes of Stage 2 need not repeat it."""
        super().on_save_checkpoint(checkpoint)
        describe_into(checkpoint, self.prior)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other robots, of other sizes or of the other stage.

        Raises:
            CheckpointError: naming what differs.
        """
        path = self.checkpoint_path
        if keys.POLICY in checkpoint:
            raise CheckpointError(f"{path} is of Stage 2, expected one of Stage 1")
        require_same_prior(self.prior, checkpoint, path)
        super().on_load_checkpoint(checkpoint)

    # ---- steps ----------------------------------------------------------------------------

    def training_step(self, batch: TrajectoryBatch, batch_idx: int) -> Tensor:
        """Compute the reconstruction loss."""
        self.log_shares([e.name for e in self.embodiments], batch.embodiment_B)
        batch = self._to_prior_rows(batch)
        loss = self._reconstruction_loss(
            batch, self.noise(batch_idx), self.flow.latent_noise, self.flow.noise_repeats
        )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.embodiment_B))
        return self.guarded_loss(loss, batch_idx)

    def predict_step(self, batch: TrajectoryBatch, batch_idx: int) -> Tensor:
        """Return latents z (B, Z) of windows."""
        return self.prior.encode(self._to_prior_rows(batch))

    # ---- parts ----------------------------------------------------------------------------

    def _to_prior_rows(self, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Replace the data's robot indices by the prior's rows."""
        row_E = to_device(self.rows, batch.embodiment_B.device)
        return batch._replace(embodiment_B=row_E[batch.embodiment_B])

    def _reconstruction_loss(
        self, batch: TrajectoryBatch, noise: FlowNoise, sigma: float, repeats: int
    ) -> Tensor:
        z_BZ = self.prior.encode(batch)
        z_BZ = self.prior.perturb(z_BZ, noise.normal(*z_BZ.shape, like=z_BZ), sigma)
        count = repeats * len(z_BZ)
        r_B = noise.time(count, self.flow.time_law, like=z_BZ)
        start_BHA = noise.normal(count, *batch.action_BHA.shape[1:], like=z_BZ)
        return self.prior.flow_loss(z_BZ, batch, start_BHA, r_B, over_ranks=self.mean_over_ranks)

    def evaluate(self, batch: TrajectoryBatch, batch_idx: int, split: str) -> None:
        """See :class:`StageModule`: reconstruction errors, and those of two baselines."""
        size, batch = len(batch.embodiment_B), self._to_prior_rows(batch)
        noise = FlowNoise(EVALUATION_KEY, batch_idx, self.global_rank)
        loss = self._reconstruction_loss(batch, noise, 0.0, 1)
        self.log(f"{split}/loss", loss, batch_size=size, sync_dist=True)
        n = self.prior.normalizer
        start_BHA = noise.normal(*batch.action_BHA.shape, like=batch.action_BHA)
        rebuilt_BHA = self.prior.sample_relative(
            self.prior.encode(batch),
            batch.state_BHS[:, 0],
            batch.embodiment_B,
            start_BHA,
            self.flow.integration_steps,
            self.flow.integrator,
        )
        baselines = {
            COPY_LAST: copied_first_action(batch, n),
            UNTRAINED: n.unnormalize_action(start_BHA, batch.embodiment_B),
        }
        self.errors.update(rebuilt_BHA, baselines, batch, n)

    def report(self, split: str) -> None:
        """See :class:`StageModule`."""
        for key, value in self.errors.compute(self.prior.normalizer.action_range_EA).items():
            self.log(f"{split}/{key}", value)
        self.errors.reset()
