"""Base of both LightningModules: optimiser, schedule, evaluation, skipped bad steps."""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from actionprior.checkpoints import keys
from actionprior.checkpoints.shards import all_gather
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment.normalization import Normalizer
from actionprior.errors import UserError
from actionprior.training.averaging import update_averages_together
from actionprior.training.bad_steps import BadSteps
from actionprior.training.flow_noise import FlowNoise
from actionprior.training.loading import SafeLoading
from actionprior.training.run_report import RunReport
from actionprior.training.run_settings import changed_settings, run_settings
from actionprior.training.schedule import (
    Schedule,
    apply_recipe,
    rates_and_decays,
    resume_lines,
)
from actionprior.training.settings import OptimizerSettings
from actionprior.training.sharding import (
    ShardedStrategy,
    full_tensor,
    resume_from_raw_weights,
    shard,
)

OTHER_SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
PRECISIONS = {"32-true", "bf16-mixed", "16-mixed"}


class StageModule(SafeLoading, LightningModule):  # type: ignore[misc]  # other arguments on purpose
    """AdamW with linear warm-up and cosine decay; logs the gradient norm and skips bad steps.

    A step whose gradient is NaN or infinite on any rank changes no weight on any rank; it still
    counts as a step. ``train/skipped_steps`` counts these steps since the run began.

    Attributes:
        batch_type: Type of the batches that the module accepts.
        stage: 1 or 2.
        prior_checkpoint: Checkpoint that the module started from; empty for none.
    """

    batch_type: type[tuple[Any, ...]]
    stage: int
    prior_checkpoint: str = ""

    @property
    def normalizer(self) -> Normalizer:
        """Statistics of the robots."""
        raise NotImplementedError

    def evaluate(self, batch: Any, batch_idx: int, split: str) -> None:  # noqa: ANN401  of ``batch_type``
        """Log what is known after one held-out batch, and accumulate the rest."""
        raise NotImplementedError

    def report(self, split: str) -> None:
        """Log and reset what :meth:`evaluate` accumulated."""
        raise NotImplementedError

    def __init__(self, learning_rate: float, optimizer: OptimizerSettings) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.optimizer_settings = optimizer
        self.bad_steps = BadSteps(optimizer.skip_bad_steps, optimizer.spike_factor)
        self._since_step: list[tuple[int, Tensor, Tensor]] = []  # batch, loss, its mark
        self._seen_E: Tensor | None = None
        self.schedule = Schedule.of_run(0)
        self._recorded_schedule: dict[str, int] | None = None
        self._recorded_run: dict[str, Any] = {}
        self._norm = torch.zeros(())

    def noise(self, batch_idx: int) -> FlowNoise:
        """Return the noise of this training step."""
        return FlowNoise(self.global_step, batch_idx, self.global_rank)

    def mean_over_ranks(self, count: Tensor) -> Tensor:
        """Return the mean of a count over the ranks in training, and the count itself otherwise."""
        if not self.training:  # ranks may validate on different numbers of batches
            return count
        return cast(Tensor, self.trainer.strategy.reduce(count, reduce_op="mean"))

    def parameter_groups(self) -> Iterable[tuple[Iterable[torch.nn.Parameter], float]]:
        """Yield groups of parameters and the factor on their learning rate."""
        yield self.parameters(), 1.0

    def decays(self, parameter: torch.nn.Parameter) -> bool:
        """Return True if the optimiser decays a parameter."""
        return parameter.dim() > 1

    @property
    def logs_now(self) -> bool:
        """True on steps that are logged; log-only values are skipped otherwise.

        One ``self.log`` takes about a millisecond.
        """
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # untyped
        return every > 0 and (self.global_step + 1) % every == 0

    @property
    def sharded(self) -> bool:
        """True if each process holds a shard of each parameter."""
        return isinstance(self.trainer.strategy, ShardedStrategy)

    def configure_model(self) -> None:
        """Shard the weights if the strategy is :class:`ShardedStrategy`.

        Raises:
            UserError: another strategy shards the weights, a callback averages sharded weights,
                or the weights are not kept in 32 bits.
        """
        if (precision := self.trainer.precision) not in PRECISIONS:
            raise UserError(
                f"trainer.precision is {precision}; expected one of {sorted(PRECISIONS)}: weights "
                "are trained in 32 bits"
            )
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            shard(self, strategy.device_mesh["data_parallel"])
        elif isinstance(strategy, OTHER_SHARDING):
            raise UserError(
                f"{type(strategy).__name__} shards the weights, which {type(self).__name__} does "
                "not support; use actionprior.ShardedStrategy (FSDP2) or DDPStrategy"
            )

    def configure_callbacks(self) -> list[Callback]:
        """Report what a run trains on, and what came out."""
        return [RunReport(self.stage)]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create AdamW, without weight decay on biases, norms and single vectors."""
        groups = []
        for parameters, factor in self.parameter_groups():
            trained = [p for p in parameters if p.requires_grad]
            for decay, chosen in (
                (self.optimizer_settings.weight_decay, [p for p in trained if self.decays(p)]),
                (0.0, [p for p in trained if not self.decays(p)]),
            ):
                if chosen:
                    groups.append(
                        {"params": chosen, "lr": self.learning_rate * factor, "weight_decay": decay}
                    )
        # With a gradient scaler, a fused step would unscale gradients that are already clipped.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimizer = torch.optim.AdamW(
            groups, lr=self.learning_rate, betas=(0.9, 0.95), fused=not scaled
        )
        if not math.isfinite(self.trainer.estimated_stepping_batches):
            raise UserError(
                "the run has no length in steps: set trainer.max_steps or trainer.max_epochs, over "
                "which the learning rate falls"
            )
        self.schedule = Schedule.of_run(int(self.trainer.estimated_stepping_batches))
        # Looked up at each step, because a resume may replace the schedule.
        scheduler = LambdaLR(optimizer, lambda step: self.rate(step))
        self._rates_and_decays = rates_and_decays(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def rate(self, step: int) -> float:
        """Return the factor on the learning rate: linear warm-up, then cosine to the final rate."""
        return self.schedule.rate(step, self.learning_rate, self.optimizer_settings)

    def _resume_schedule(self) -> None:
        """Take rates and decays from the recipe, and say what differs from the checkpoint."""
        if self._recorded_schedule is None:
            return
        recorded = Schedule.from_state_dict(self._recorded_schedule)
        optimizer = self.trainer.optimizers[0]
        before = max(float(group["lr"]) for group in optimizer.param_groups)
        if recorded is not None:
            self.schedule = recorded.resumed(
                self.global_step, self.schedule.length, self.optimizer_settings.when_extended
            )
        scheduler = cast(LambdaLR, self.trainer.lr_scheduler_configs[0].scheduler)
        differences = apply_recipe(optimizer, scheduler, self._rates_and_decays)
        rate = max(float(group["lr"]) for group in optimizer.param_groups)
        differences += changed_settings(run_settings(self.trainer), self._recorded_run)
        for line in resume_lines(self.schedule, recorded, differences, rate, before):
            rank_zero_warn(f"resuming from {self.checkpoint_path}: {line}")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the full gradient before clipping; drop a gradient that is not finite.

        AdamW changes neither weights nor moments of parameters without a gradient.

        Raises:
            UserError: more than ``skip_bad_steps`` consecutive bad steps, naming the batches.
        """
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self._norm = get_total_norm(gradients)
        norm = full_tensor(self._norm)
        batches, self._since_step = self._since_step, []
        # The same on every rank, because gradients are averaged already.
        bad = not torch.isfinite(norm)
        exceeded = self.bad_steps.record(bad)
        if bad:
            what = self._describe_bad_step(batches)
            if exceeded:
                raise UserError(
                    f"{what}; {self.bad_steps.in_a_row} bad steps in a row (skip_bad_steps is "
                    f"{self.bad_steps.limit}): check the data, lower the learning rate or clip the "
                    "gradient"
                )
            rank_zero_warn(f"skipped: {what}")
            for parameter in self.parameters():
                parameter.grad = None
        if self.logs_now:
            self.log("train/grad_norm", norm)
            self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
            self.log("train/skipped_steps", float(self.bad_steps.skipped))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients by the norm, which is known already, or by value.

        Lightning would compute the norm again, and refuses a fused optimiser in mixed precision.
        """
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            clip_grads_with_norm_(self.parameters(), gradient_clip_val, self._norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the count of skipped steps, settings of the run, and which episodes are held out."""
        checkpoint[keys.BAD_STEPS] = self.bad_steps.state_dict()
        checkpoint[keys.SCHEDULE] = self.schedule.state_dict()
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            checkpoint[keys.RUN] = run_settings(self._trainer)
        data = self._embodied_data()
        if data is not None and (record := data.split_record()):
            checkpoint[keys.SPLIT] = record

    @property
    def checkpoint_path(self) -> str:
        """Path of the checkpoint that the trainer loads, for messages."""
        return str(getattr(self._trainer, "ckpt_path", None) or "the checkpoint")

    def _embodied_data(self) -> EmbodiedDataModule | None:
        data = getattr(self._trainer, "datamodule", None)
        return data if isinstance(data, EmbodiedDataModule) else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume the count of skipped steps, the split, and training from the raw weights."""
        if (data := self._embodied_data()) is not None and keys.SPLIT in checkpoint:
            data.follow_split(checkpoint[keys.SPLIT], self.checkpoint_path)
        if self._trainer is not None:
            resume_from_raw_weights(self, checkpoint, self.checkpoint_path)
        self.bad_steps.load_state_dict(checkpoint[keys.BAD_STEPS])
        self._recorded_schedule = checkpoint.get(keys.SCHEDULE, {})
        self._recorded_run = checkpoint.get(keys.RUN, {})

    def log_shares(self, names: list[str], embodiment_B: Tensor) -> None:
        """Log each robot's share of this rank's windows since the run began.

        Nothing is logged for a single robot.
        """
        if len(names) < 2:
            return
        robot_E = torch.arange(len(names), device=embodiment_B.device)
        counts_E = (embodiment_B[:, None] == robot_E).sum(0)  # bincount would wait for the device
        self._seen_E = counts_E if self._seen_E is None else self._seen_E + counts_E
        if self.logs_now:
            shares = (self._seen_E / self._seen_E.sum()).tolist()
            for name, share in zip(names, shares, strict=True):
                self.log(f"train/share/{name}", share)

    def on_train_start(self) -> None:
        """Let averages of the weights be updated at once, and finish a resume of the schedule."""
        update_averages_together(self)
        self._resume_schedule()

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ANN401  Lightning's own
        """Refuse batches of the other stage.

        Raises:
            UserError: naming both types of batches.
        """
        if not isinstance(batch, self.batch_type):
            data = type(getattr(self.trainer, "datamodule", None)).__name__
            raise UserError(
                f"{type(self).__name__} takes {self.batch_type.__name__}, and {data} gives "
                f"{type(batch).__name__}: Stage 1 needs data_modules.LeRobotTrajectories or its "
                "like, Stage 2 data_modules.LeRobotVLA or its like"
            )

    on_validation_batch_start = on_train_batch_start
    on_test_batch_start = on_train_batch_start
    on_predict_batch_start = on_train_batch_start

    # ---- evaluation -----------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Refuse to report errors of robots without statistics."""
        self.normalizer.require_fitted()

    on_test_epoch_start = on_validation_epoch_start
    on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  of ``batch_type``
        """Evaluate a held-out batch."""
        self.evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  of ``batch_type``
        """Do the same as in validation, logged under ``test/``."""
        self.evaluate(batch, batch_idx, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the errors of all held-out batches."""
        self.report("val")

    def on_test_epoch_end(self) -> None:
        """Log the errors of all held-out batches."""
        self.report("test")

    # ---- bad steps ------------------------------------------------------------------------

    def guarded_loss(self, loss: Tensor, batch_idx: int) -> Tensor:
        """Return the loss to train on; every rank drops the gradient of a bad one."""
        mark = self.bad_steps.mark(loss)
        self._since_step.append((batch_idx, loss.detach(), mark))
        return loss * mark

    def _describe_bad_step(self, batches: list[tuple[int, Tensor, Tensor]]) -> str:
        """List the batches with bad losses on all ranks, or all batches if no loss was bad."""
        data = self._embodied_data()
        mine = []
        for batch_idx, loss, mark in batches:
            held = data.batch_contents(batch_idx) if data is not None else ""
            text = f"training loss {float(loss):.4g} on rank {self.global_rank}, batch {batch_idx}"
            mine.append((bool(mark.isnan()), f"{text} ({held})" if held else text))
        ranks = all_gather(mine) if self.trainer.world_size > 1 else [mine]
        found = [batch for of_rank in ranks for batch in of_rank]
        causes = [text for guilty, text in found if guilty]
        if not causes:
            causes = ["the gradient is not finite", *(text for _, text in found)]
        return f"step {self.global_step} of epoch {self.current_epoch}: {'; '.join(causes)}"
