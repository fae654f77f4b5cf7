"""Roll out the policy during ``fit`` and in ``test``, and report its success rate."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, override

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from actionprior.batch import Committed, Observation
from actionprior.benchmarks import DIFFICULTY_GROUPS, expand_groups
from actionprior.embodiment import Embodiment
from actionprior.embodiment.guard import GuardMode, check_guard
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.rollout import (
    DEFAULT_SEED,
    ChunkPolicy,
    EpisodeResult,
    ObservationMap,
    RolloutError,
    RolloutResult,
    group_rates,
    mean_of_groups,
    rollout,
)
from actionprior.rollout.robot_env import OWN_ENVIRONMENTS, find_spec, register_environments
from actionprior.rollout.run import Vectorization
from callbacks.rollout_report import log_scalars, log_videos, print_table, write_files


class SimulatorRollouts(pl.Callback):
    """Roll out a module's policy in simulators; :class:`RolloutEvaluation` says when and reports.

    Args:
        env_ids: Gymnasium ids of the environments. ``metaworld/mt10``, ``metaworld/mt50`` and
            ``metaworld/easy`` (``medium``, ``hard``, ``very_hard``) stand for their tasks.
        observation_map: Map from the embodiment's features to the environments' observations.
        embodiment: Name of the robot, or a name for each environment id.
        seed: Seed of the first episode.
        num_envs: Number of environments that run side by side on each rank.
        execute_steps: Actions executed of each chunk before the next is planned.
        delay_steps: Steps that planning takes (real-time chunking). With 0 the robot waits for
            each plan.
        max_steps: Time limit that replaces the environments'.
        env_kwargs: Arguments of ``gymnasium.make``.
        vectorization: ``sync`` runs all environments in this process, ``async`` one process per
            environment.
        success_key: Key of ``info`` that reports success. None selects ``is_success``, or else
            ``success``.
        import_modules: Modules that register the environments. None selects
            ``actionprior.envs`` and ``actionprior.benchmarks``.
        guard: What happens to actions beyond the recorded limits, and to steps larger than any
            recorded: ``warn``, ``clip``, or ``off``. States far outside the training range are
            warned of. All are counted in the results.
        guard_margin: Share of the recorded range by which limits and steps may be exceeded.
    """

    def __init__(
        self,
        env_ids: list[str],
        observation_map: ObservationMap,
        embodiment: str | dict[str, str],
        seed: int = DEFAULT_SEED,
        num_envs: int = 8,
        execute_steps: int = 8,
        delay_steps: int = 0,
        max_steps: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        vectorization: Vectorization = "sync",
        success_key: str | None = None,
        import_modules: list[str] | None = None,
        guard: GuardMode = "warn",
        guard_margin: float = 0.1,
    ) -> None:
        self.env_ids = expand_groups(env_ids)
        self.observation_map = observation_map
        self.embodiment = embodiment
        self.seed = seed
        self.num_envs = num_envs
        self.execute_steps = execute_steps
        self.delay_steps = delay_steps
        self.max_steps = max_steps
        self.env_kwargs = env_kwargs
        self.vectorization = vectorization
        self.success_key = success_key
        self.import_modules = OWN_ENVIRONMENTS if import_modules is None else import_modules
        self.guard: GuardMode = guard
        self.guard_margin = guard_margin
        check_guard(guard, guard_margin)
        if not env_ids:
            raise RolloutError(
                f"{type(self).__name__} got env_ids={env_ids}; expected at least one environment"
            )
        if isinstance(embodiment, dict) and (missing := set(self.env_ids) - set(embodiment)):
            raise RolloutError(
                f"{type(self).__name__}: embodiment names no robot for environment {min(missing)!r}"
            )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Register the environments, so that a wrong name is reported before training.

        Raises:
            RolloutError: A module of ``import_modules`` or an environment does not exist, the
                policy does not know the robot, or weights are sharded.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise RolloutError(
                f"{type(self).__name__} needs the full weights on each process, and "
                f"{type(trainer.strategy).__name__} shards them; remove the callback from this "
                "run's recipe, and roll out a checkpoint with `lightning test`"
            )
        register_environments(self.import_modules)
        known = [robot.name for robot in getattr(pl_module, "embodiments", [])]
        for env_id in self.env_ids:
            find_spec(env_id)
            if known and (robot := self.robot_of(env_id)) not in known:
                raise RolloutError(
                    f"{type(self).__name__}: the recipe plays environment {env_id!r} with "
                    f"embodiment {robot!r}, but the policy knows {known}; set embodiment of "
                    f"{type(self).__name__}"
                )

    def robot_of(self, env_id: str) -> str:
        """Return the name of the robot of an environment."""
        return self.embodiment if isinstance(self.embodiment, str) else self.embodiment[env_id]

    def play(
        self, policy: "_ModulePolicy", env_id: str, first: int, count: int, filmed: int, quick: bool
    ) -> list[EpisodeResult]:
        """Run some episodes of an environment.

        Args:
            policy: Policy to roll out.
            env_id: Environment to play.
            first: Number of the first episode, from 0 on.
            count: Number of episodes.
            filmed: Number of episodes to film.
            quick: Stop episodes after two chunks.
        """
        if not count:
            return []
        return rollout(
            policy,
            env_id,
            episodes=count,
            observation_map=self.observation_map,
            embodiment=self.robot_of(env_id),
            seed=self.seed + first,
            num_envs=self.num_envs,
            execute_steps=self.execute_steps,
            delay_steps=self.delay_steps,
            env_kwargs=self.env_kwargs,
            vectorization=self.vectorization,
            record=filmed,
            max_steps=2 * self.execute_steps if quick else self.max_steps,
            success_key=self.success_key,
            device=policy.device,
            guard=self.guard,
            guard_margin=self.guard_margin,
        ).episodes


class RolloutEvaluation(SimulatorRollouts):
    """Measure success rates of the trained policy in simulators.

    It logs under ``rollout/<env id>/``: ``success_rate`` with its 95 % Wilson interval
    ``success_low``, ``success_high``, ``return``, ``episode_length``, ``jerk``, ``latency_ms``,
    ``clipped_share``, the counts of the guard and videos. ``rollout/success_rate`` is the mean over
    the environments, and ``ModelCheckpoint`` can monitor it. Benchmarks with difficulty groups add
    ``rollout/metaworld/easy/success_rate`` and so on, the means over the played tasks of each
    group, and ``rollout/mean_of_groups``. Videos and ``results.json`` are written to
    ``<log_dir>/rollouts/step_XXXXXXXX/``, or to ``<log_dir>/rollouts/test/`` in ``test``.

    With Lightning's weight averaging, the averaged weights are evaluated. Weights, train/eval
    modes and random states are restored afterwards, so training does not change. With several
    ranks, each runs a part of the episodes. ``fast_dev_run`` runs one short episode per
    environment and writes nothing.

    Args:
        env_ids: See :class:`SimulatorRollouts`.
        observation_map: See :class:`SimulatorRollouts`.
        embodiment: See :class:`SimulatorRollouts`.
        episodes: Number of episodes of each environment.
        every_n_steps: Optimiser steps between evaluations. 0 evaluates only at the end of ``fit``.
        videos: Number of episodes of each environment to film.
        tag: First part of the logged names. Set it if several of these callbacks are in use.
        **rollouts: Further arguments of :class:`SimulatorRollouts`.
    """

    def __init__(
        self,
        env_ids: list[str],
        observation_map: ObservationMap,
        embodiment: str | dict[str, str],
        episodes: int = 50,
        every_n_steps: int = 0,
        videos: int = 2,
        tag: str = "rollout",
        **rollouts: Any,  # noqa: ANN401  the base class has their types
    ) -> None:
        super().__init__(env_ids, observation_map, embodiment, **rollouts)
        self.episodes = episodes
        self.every_n_steps = every_n_steps
        self.videos = videos
        self.tag = tag
        self.results: list[RolloutResult] = []
        """Results of the latest evaluation, one per environment, on every rank."""
        self._evaluated_step = -1
        if episodes < 1:
            raise RolloutError(f"{type(self).__name__} got episodes={episodes}; expected 1 or more")

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._evaluated_step = -1

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401  Lightning's own
        batch: Any,  # noqa: ANN401  Lightning's own
        batch_idx: int,
    ) -> None:
        """Evaluate every ``every_n_steps`` optimiser steps."""
        step = trainer.global_step
        # With accumulated gradients several batches share a step.
        if self.every_n_steps and step and step % self.every_n_steps == 0:
            self._evaluate_in_fit(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the finished policy."""
        self._evaluate_in_fit(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate, print a table and write the results."""
        metrics = self._evaluate(trainer, pl_module, "test")
        pl_module.log_dict(metrics, sync_dist=True, batch_size=1)
        if trainer.is_global_zero:
            print_table(self.results)

    def _evaluate_in_fit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if step == self._evaluated_step:
            return
        self._evaluated_step = step
        metrics = self._evaluate(trainer, pl_module, f"step_{step:08d}")
        # Lightning forbids log() at the end of training, and drops values between
        # log_every_n_steps. So pass them to loggers and checkpoint callbacks directly.
        log_scalars(trainer.loggers, metrics, step)
        trainer.callback_metrics.update({k: torch.tensor(v) for k, v in metrics.items()})

    def _evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, folder: str
    ) -> dict[str, float]:
        log_dir = trainer.log_dir or trainer.default_root_dir  # a collective call of all ranks
        policy = _ModulePolicy(trainer, pl_module)
        with (
            isolate_rng(include_cuda=pl_module.device.type == "cuda"),
            _averaged_weights_and_eval_mode(trainer, pl_module),
        ):
            self.results = [self._roll_out(trainer, policy, env_id) for env_id in self.env_ids]
        metrics = {
            f"{self.tag}/{result.env_id}/{key}": value
            for result in self.results
            for key, value in result.metrics().items()
        }
        rates = [result.success_rate for result in self.results]
        metrics[f"{self.tag}/success_rate"] = sum(rates) / len(rates)
        if groups := group_rates(self.results, DIFFICULTY_GROUPS):
            for group in groups:
                metrics[f"{self.tag}/{group.name}/success_rate"] = group.success_rate
            metrics[f"{self.tag}/mean_of_groups"] = mean_of_groups(groups)
        if trainer.is_global_zero and not _is_quick(trainer):
            rates_hz = [policy.robot(self.robot_of(r.env_id)).control_hz for r in self.results]
            step = trainer.global_step
            for result, fps in zip(self.results, rates_hz, strict=True):
                log_videos(trainer.loggers, self.tag, result, step, fps)
            write_files(self.results, rates_hz, log_dir, self.tag, folder, step)
        return metrics

    def _roll_out(self, trainer: pl.Trainer, policy: "_ModulePolicy", env_id: str) -> RolloutResult:
        quick = _is_quick(trainer)
        total = 1 if quick else self.episodes
        first = total * trainer.global_rank // trainer.world_size
        count = total * (trainer.global_rank + 1) // trainer.world_size - first
        filmed = self.videos if trainer.is_global_zero and not quick else 0
        mine = self.play(policy, env_id, first, count, filmed, quick)
        return RolloutResult(env_id, _gather(trainer, mine))


class _ModulePolicy:
    """Run a module as a ``ChunkPolicy`` in the trainer's precision."""

    def __init__(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        wanted = ("embodiments", "chunk_length", "history_length", "predict_chunk")
        if missing := [name for name in wanted if not hasattr(module, name)]:
            raise RolloutError(
                f"{type(pl_module).__name__} has no {', '.join(missing)}; rollouts need a module "
                "with the members of actionprior.rollout.ChunkPolicy"
            )
        self._module: ChunkPolicy = module
        self._precision = trainer.precision_plugin
        self.device = pl_module.device
        self.embodiments: list[Embodiment] = self._module.embodiments
        self.chunk_length: int = self._module.chunk_length
        self.history_length: int = self._module.history_length
        self.image_shape: ImageShape | None = getattr(module, "image_shape", None)
        self.recorded_ranges: dict[str, RecordedRanges] = getattr(module, "recorded_ranges", {})

    def robot(self, name: str) -> Embodiment:
        """Return the embodiment of a name that a rollout has already checked."""
        return next(robot for robot in self.embodiments if robot.name == name)

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        convert = self._precision.convert_input
        inputs = (convert(observation), convert(noise_BHA))
        with self._precision.forward_context():
            if committed is None:  # modules without real-time chunking need not accept it
                return self._module.predict_chunk(*inputs)
            return self._module.predict_chunk(*inputs, convert(committed))


def _is_quick(trainer: pl.Trainer) -> bool:
    """Check whether the trainer only tests that everything runs (``fast_dev_run``)."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set outside of its __init__


@contextmanager
def _averaged_weights_and_eval_mode(
    trainer: pl.Trainer, pl_module: pl.LightningModule
) -> Iterator[None]:
    """Context manager: averaged weights and eval mode, restored on exit."""
    averaging = [
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it untyped
        if isinstance(callback, WeightAveraging) and callback._average_model is not None
    ]
    modes = [(module, module.training) for module in pl_module.modules()]
    # WeightAveraging does the same around validation. In on_train_end and in test the module may
    # already hold the averaged weights. Then both are equal, and swapping changes nothing.
    for callback in averaging:
        callback._swap_models(pl_module)
    pl_module.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for callback in averaging:
            callback._swap_models(pl_module)


def _gather(trainer: pl.Trainer, mine: list[EpisodeResult]) -> list[EpisodeResult]:
    """Gather all ranks' episodes in seed order. Frames stay on the rank that filmed them."""
    if trainer.world_size == 1:
        return mine
    parts: list[list[EpisodeResult]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(parts, [replace(e, frames=[]) for e in mine])
    parts[trainer.global_rank] = mine
    return [episode for part in parts for episode in part]
