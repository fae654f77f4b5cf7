"""Base of both LightningModules: optimiser, schedule, reproducible noise, skipped bad steps."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from actionprior.batch import TrajectoryBatch
from actionprior.checkpoints import keys
from actionprior.checkpoints.shards import all_gather
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment.normalization import Normalizer
from actionprior.errors import UserError
from actionprior.flow_matching import TimeLaw, sample_time
from actionprior.networks.device import to_device
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.training.averaging import update_averages_together
from actionprior.training.bad_steps import BadSteps
from actionprior.training.settings import OptimizerSettings
from actionprior.training.sharding import (
    ShardedStrategy,
    full_tensor,
    resume_from_raw_weights,
    shard,
)

OTHER_SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
EVALUATION_KEY = 900_000_007  # seeds validation noise; no training step has this number
PRECISIONS = {"32-true", "bf16-mixed", "16-mixed"}


class FlowNoise:
    """Flow times and noise that depend only on seed, step, micro-batch and rank.

    Lightning does not store the random state, so a resumed run would draw other numbers from the
    global generator. Here the number of workers has no influence either.
    """

    def __init__(self, *key: int) -> None:
        """Seed from the run's seed, which ``seed_everything`` sets, and ``key``."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        mixed = 0
        for part in (seed, *key):
            mixed = (mixed * 1_000_003 + part + 1) % (2**63 - 1)
        self.generator = torch.Generator().manual_seed(mixed)

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """Draw standard normal noise on the device of ``like``."""
        return to_device(torch.randn(*shape, generator=self.generator), like.device)

    def integers(self, count: int, most: int, like: Tensor) -> Tensor:
        """Draw integers from 0 to ``most`` (count,), uniformly, on the device of ``like``."""
        return to_device(torch.randint(most + 1, (count,), generator=self.generator), like.device)

    @contextmanager
    def for_layers(self, module: nn.Module, device: torch.device) -> Iterator[None]:
        """Context manager: dropout layers of ``module`` draw from this noise, too."""
        if not any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in module.modules()):
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=self.generator)))
            yield

    def time(self, count: int, law: TimeLaw, like: Tensor) -> Tensor:
        """Draw stratified flow times (count,) on the device of ``like``."""
        return to_device(sample_time(count, law, generator=self.generator), like.device)


class StageModule(LightningModule):
    """AdamW with linear warm-up and cosine decay; logs the gradient norm and skips bad steps.

    A step whose gradient is NaN or infinite on any rank changes no weight on any rank; it still
    counts as a step. ``train/skipped_steps`` counts these steps since the run began.

    Attributes:
        batch_type: Type of the batches that the module accepts.
    """

    batch_type: type[tuple[Any, ...]]

    def __init__(self, learning_rate: float, optimizer: OptimizerSettings) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.optimizer_settings = optimizer
        self.bad_steps = BadSteps(optimizer.skip_bad_steps, optimizer.spike_factor)
        self._since_step: list[tuple[int, Tensor, Tensor]] = []  # batch, loss, its mark
        self._seen_E: Tensor | None = None
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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create AdamW, without weight decay on biases, norms and single vectors."""
        groups = []
        for parameters, factor in self.parameter_groups():
            trained = [p for p in parameters if p.requires_grad]
            for decay, chosen in (
                (self.optimizer_settings.weight_decay, [p for p in trained if p.dim() > 1]),
                (0.0, [p for p in trained if p.dim() <= 1]),
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
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: self.rate(k, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def rate(self, step: int, total: int) -> float:
        """Return the factor on the learning rate: linear warm-up, then cosine to the final rate."""
        warmup = self.optimizer_settings.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, total - warmup)
        final = self.optimizer_settings.final_learning_rate / self.learning_rate
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

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
        """Save the count of skipped steps."""
        checkpoint[keys.BAD_STEPS] = self.bad_steps.state_dict()

    @property
    def checkpoint_path(self) -> str:
        """Path of the checkpoint that the trainer loads, for messages."""
        return str(getattr(self._trainer, "ckpt_path", None) or "the checkpoint")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume the count of skipped steps, and training from the raw weights."""
        if self._trainer is not None:
            resume_from_raw_weights(self, checkpoint, self.checkpoint_path)
        self.bad_steps.load_state_dict(checkpoint[keys.BAD_STEPS])

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
        """Let averages of the weights be updated with one call per step."""
        update_averages_together(self)

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

    def guarded_loss(self, loss: Tensor, batch_idx: int) -> Tensor:
        """Return the loss to train on; every rank drops the gradient of a bad one."""
        mark = self.bad_steps.mark(loss)
        self._since_step.append((batch_idx, loss.detach(), mark))
        return loss * mark

    def _describe_bad_step(self, batches: list[tuple[int, Tensor, Tensor]]) -> str:
        """List the batches with bad losses on all ranks, or all batches if no loss was bad."""
        data = getattr(self.trainer, "datamodule", None)
        mine = []
        for batch_idx, loss, mark in batches:
            held = data.batch_contents(batch_idx) if isinstance(data, EmbodiedDataModule) else ""
            text = f"training loss {float(loss):.4g} on rank {self.global_rank}, batch {batch_idx}"
            mine.append((bool(mark.isnan()), f"{text} ({held})" if held else text))
        ranks = all_gather(mine) if self.trainer.world_size > 1 else [mine]
        found = [batch for of_rank in ranks for batch in of_rank]
        causes = [text for guilty, text in found if guilty]
        if not causes:
            causes = ["the gradient is not finite", *(text for _, text in found)]
        return f"step {self.global_step} of epoch {self.current_epoch}: {'; '.join(causes)}"


def embodied_data_module(module: StageModule) -> EmbodiedDataModule:
    """Return the trainer's DataModule.

    Raises:
        UserError: it is not an ``EmbodiedDataModule``.
    """
    data = getattr(module.trainer, "datamodule", None)
    if not isinstance(data, EmbodiedDataModule):
        raise UserError(
            f"{type(module).__name__} needs an EmbodiedDataModule, found {type(data).__name__}; "
            "subclass actionprior.data.EmbodiedDataModule"
        )
    return data


def fit_statistics(
    module: StageModule, normalizer: Normalizer, sample: Callable[[], TrajectoryBatch]
) -> None:
    """Fit the statistics of robots that have none yet; does nothing outside of training.

    Args:
        module: Module in training.
        normalizer: Normaliser that holds the statistics.
        sample: Function that returns training windows of every robot.
    """
    if module.trainer.state.fn == TrainerFn.FITTING and normalizer.missing:
        normalizer.fit(sample())


def check_lengths(architecture: PriorArchitecture, data: EmbodiedDataModule) -> None:
    """Refuse windows that do not fit the architecture.

    Raises:
        UserError: naming both lengths.
    """
    for name in ("chunk_length", "history_length"):
        found, wanted = getattr(data, name), getattr(architecture, name)
        if found != wanted:
            raise UserError(
                f"the data's {name} is {found} but the model's is {wanted}; "
                "set both to the same value"
            )
