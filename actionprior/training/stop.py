"""Stop on a cluster's signals between two steps, at the same step on every rank."""

import signal
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StopBetweenSteps(Callback):
    """On SIGTERM, finish the step, save and stop; on SLURM's requeue signal, also requeue.

    Lightning's own handlers act at once, wherever the process is. They may save between the
    optimiser's step and the schedule's, or while validation uses the averaged weights; such a
    checkpoint belongs to no step. Ranks that stop at different places wait for each other forever.

    The checkpoint is ``hpc_ckpt_<n>.ckpt`` in the run's root folder.
    """

    def __init__(self) -> None:
        self._asked = 0  # 1: stop; 2: requeue

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers; Lightning restores the original ones at the end."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            signal.signal(environment.requeue_signal or signal.SIGUSR1, partial(self._note, 2))
        signal.signal(signal.SIGTERM, partial(self._note, 1))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Save and stop if any rank got a signal.

        Raises:
            SIGTERMException: to end the process, with code 0 if it was requeued and else with
                143, so that no scheduler takes the run for finished.
        """
        if trainer.fit_loop._should_accumulate():  # a checkpoint holds no accumulated gradients
            return
        asked = self._asked
        if trainer.world_size > 1:
            mine = torch.tensor(asked, device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if asked == 2:
            trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None)  # type: ignore[arg-type]  # Lightning ignores the frame
        elif asked == 1:
            connector = trainer._checkpoint_connector
            trainer.save_checkpoint(connector.hpc_save_path(trainer.default_root_dir))
        if asked:
            raise SIGTERMException(0 if asked == 2 else 128 + signal.SIGTERM)

    def _note(self, asked: int, *_: object) -> None:
        self._asked = max(self._asked, asked)  # SLURM sends SIGTERM after its requeue signal
