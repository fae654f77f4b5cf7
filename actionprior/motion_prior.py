"""Stage 1: learn to move from trajectories, without images or language.

Source: arXiv 2606.26095, Sec. III-B. Axes: B batch, H steps, A action slots, Z latent width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from actionprior.batch import TrajectoryBatch
from actionprior.checkpoints import keys
from actionprior.checkpoints.match import require_same_prior
from actionprior.checkpoints.prior import describe_into
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.training.metrics import ChunkError
from actionprior.training.settings import FlowSettings, OptimizerSettings
from actionprior.training.stage import (
    EVALUATION_KEY,
    FlowNoise,
    StageModule,
    check_lengths,
    embodied_data_module,
    fit_statistics,
)

BASELINES = ("copy_last", "untrained")


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

    batch_type = TrajectoryBatch

    def __init__(
        self,
        embodiments: list[dict[str, Any]],
        architecture: PriorArchitecture | None = None,
        learning_rate: float = 1e-3,
        optimizer: OptimizerSettings = OptimizerSettings(),
        flow: FlowSettings = FlowSettings(),
    ) -> None:
        """Create the module.

        Args:
            embodiments: Robots as plain data (``Embodiment.to_dict``); the command line takes them
                from the data.
            architecture: Sizes and switches of the prior.
            learning_rate: Peak learning rate of AdamW (paper: 1e-4 with 0.6 B parameters).
            optimizer: Schedule, weight decay and skipped steps.
            flow: Training and integration of the flow.
        """
        super().__init__(learning_rate, optimizer)
        self.prior = MotionPrior(
            [Embodiment.from_dict(e) for e in embodiments], architecture or PriorArchitecture()
        )
        self.flow = flow
        names = ("error", *BASELINES)
        self.errors = torch.nn.ModuleDict({n: ChunkError(self.prior.embodiments) for n in names})

    # ---- life cycle -----------------------------------------------------------------------

    def configure_model(self) -> None:
        """Fit the statistics of a new run; those of a loaded checkpoint replace them.

        This is not in ``setup``, because weight averaging copies the module before ``setup``.
        """
        data = embodied_data_module(self)
        check_lengths(self.prior.architecture, data)
        fit_statistics(self, self.prior.normalizer, data.statistics_sample)
        super().configure_model()

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
        self.log_shares([e.name for e in self.prior.embodiments], batch.embodiment_B)
        loss = self._reconstruction_loss(
            batch, self.noise(batch_idx), self.flow.latent_noise, self.flow.noise_repeats
        )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.embodiment_B))
        return self.guarded_loss(loss, batch_idx)

    def on_validation_epoch_start(self) -> None:
        """Refuse to report errors of robots without statistics."""
        self.prior.normalizer.require_fitted()

    on_test_epoch_start = on_validation_epoch_start
    on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: TrajectoryBatch, batch_idx: int) -> None:
        """Accumulate reconstruction errors on held-out windows."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: TrajectoryBatch, batch_idx: int) -> None:
        """Accumulate reconstruction errors on held-out windows."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: TrajectoryBatch, batch_idx: int) -> Tensor:
        """Return latents z (B, Z) of windows."""
        return self.prior.encode(batch)

    def on_validation_epoch_end(self) -> None:
        """Log errors per robot and group."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log errors per robot and group."""
        self._report("test")

    def on_fit_end(self) -> None:
        """Print the last held-out errors, one line per robot and group."""
        if self.trainer.is_global_zero:
            print(held_out_table(self.trainer.callback_metrics))

    # ---- parts ----------------------------------------------------------------------------

    def _reconstruction_loss(
        self, batch: TrajectoryBatch, noise: FlowNoise, sigma: float, repeats: int
    ) -> Tensor:
        z_BZ = self.prior.encode(batch)
        z_BZ = self.prior.perturb(z_BZ, noise.normal(*z_BZ.shape, like=z_BZ), sigma)
        count = repeats * len(z_BZ)
        r_B = noise.time(count, self.flow.time_law, like=z_BZ)
        start_BHA = noise.normal(count, *batch.action_BHA.shape[1:], like=z_BZ)
        return self.prior.flow_loss(z_BZ, batch, start_BHA, r_B, over_ranks=self.mean_over_ranks)

    def _evaluate(self, batch: TrajectoryBatch, batch_idx: int, split: str) -> None:
        size = len(batch.embodiment_B)
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
        copied = batch._replace(action_BHA=batch.action_BHA[:, :1].expand_as(batch.action_BHA))
        candidates = {
            "error": rebuilt_BHA,
            "copy_last": n.relative_action(copied),
            "untrained": n.unnormalize_action(start_BHA, batch.embodiment_B),
        }
        target_BHA, mask_BHA = n.relative_action(batch), n.action_mask(batch)
        for name, predicted_BHA in candidates.items():
            metric: ChunkError = self.errors[name]  # type: ignore[assignment]  # ModuleDict forgets
            metric.update(predicted_BHA, target_BHA, mask_BHA, batch.embodiment_B)

    def _report(self, split: str) -> None:
        scale_EA = self.prior.normalizer.action_range_EA
        ratio: dict[str, dict[str, Tensor]] = {}
        for name in self.errors:
            metric: ChunkError = self.errors[name]  # type: ignore[assignment]  # ModuleDict forgets
            prefix = "" if name == "error" else f"{name}_"
            for key, value in metric.compute().items():
                self.log(f"{split}/" + key.replace("/mae_", f"/{prefix}mae_"), value)
            ratio[name] = metric.normalized(scale_EA)
            metric.reset()
        for robot, value in ratio["error"].items():
            self.log(f"{split}/{robot}/error_over_copy_last", value / ratio["copy_last"][robot])
            self.log(f"{split}/{robot}/error_over_untrained", value / ratio["untrained"][robot])
        if ratio["error"]:
            self.log(f"{split}/mae_normalized", torch.stack(list(ratio["error"].values())).mean())


def held_out_table(metrics: Mapping[str, Tensor]) -> str:
    """Format held-out errors and both baselines as a table; empty if there was no validation."""
    lines = []
    for key, value in metrics.items():
        split, _, rest = key.partition("/")
        robot, _, name = rest.partition("/")
        if split == "val" and name.startswith("mae_"):
            baselines = [float(metrics[f"val/{robot}/{b}_{name}"]) for b in BASELINES]
            figures = "".join(f"{f:>14.4f}" for f in (float(value), *baselines))
            lines.append(f"{robot + ' ' + name:<44}{figures}")
    head = f"{'held-out mean absolute error':<44}" + "".join(
        f"{title:>14}" for title in ("prior", *BASELINES)
    )
    return "\n".join([head, *lines]) if lines else ""
