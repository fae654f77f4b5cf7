"""Stop on Ctrl-C and on a cluster's signals between two steps, at the same step on every rank."""

import signal
import sys
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

INTERRUPT, STOP, REQUEUE = 1, 2, 3
"""What a run is asked for; of several, the highest counts."""
EXIT_CODES = {INTERRUPT: 128 + signal.SIGINT, STOP: 128 + signal.SIGTERM, REQUEUE: 0}


class StopBetweenSteps(Callback):
    """On SIGTERM or Ctrl-C, finish the step, save and stop; on SLURM's signal, also requeue.

    Lightning's own handlers act at once, wherever the process is. They may save between the
    optimiser's step and the schedule's, or while validation uses the averaged weights; such a
    checkpoint belongs to no step. Ranks that stop at different places wait for each other forever.

    The checkpoint is ``hpc_ckpt_<n>.ckpt`` in the run's root folder. A second Ctrl-C stops at once,
    without saving, and so does one before training, when there is nothing to save. What follows
    training, such as rollouts, and all of ``test`` and ``validate``, ends at once on either signal.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._on_interrupt: Any = None  # handler before training
        self._first_step: int | None = None  # None: training has not begun
        self._over = False  # Ctrl-C came after training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers; Lightning restores the original ones at the end."""
        self._first_step = trainer.global_step
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            requeue = environment.requeue_signal or signal.SIGUSR1
            signal.signal(requeue, partial(self._note, REQUEUE))
        signal.signal(signal.SIGTERM, partial(self._terminate, trainer))
        self._on_interrupt = signal.signal(signal.SIGINT, partial(self._interrupt, trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handler of SIGTERM, which waits for the next batch."""
        signal.signal(signal.SIGTERM, partial(self._terminate, trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As in ``test``, except within training."""
        if trainer.state.fn != TrainerFn.FITTING:
            signal.signal(signal.SIGTERM, partial(self._terminate, trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler of Ctrl-C."""
        self._restore()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the handler of Ctrl-C, and say what a Ctrl-C leaves behind."""
        self._restore()
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            print(f"Ctrl-C: {self._left_behind(trainer)}", file=sys.stderr)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Save and stop if any rank got a signal.

        Raises:
            SIGTERMException: to end the process, with code 0 if it was requeued and else with
                130 or 143, so that no scheduler takes the run for finished.
        """
        if trainer.fit_loop._should_accumulate():  # a checkpoint holds no accumulated gradients
            return
        asked = self._asked
        if trainer.world_size > 1:
            mine = torch.tensor(asked, device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if asked == REQUEUE:
            trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None)  # type: ignore[arg-type]  # Lightning ignores the frame
        elif asked:
            path = trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir)
            trainer.save_checkpoint(path)
            if trainer.is_global_zero:
                print(
                    f"saved step {trainer.global_step}; to resume, run the same command with "
                    f"--ckpt_path {path}",
                    file=sys.stderr,
                )
        if asked:
            raise SIGTERMException(EXIT_CODES[asked])

    def _left_behind(self, trainer: Trainer) -> str:
        verb = trainer.state.fn
        if verb is not None and verb != TrainerFn.FITTING:
            return f"{verb.value} has not ended, so there is no result"
        if self._over:
            return "training was over and is saved; what followed it, such as rollouts, is not done"
        if self._first_step is None or trainer.global_step == self._first_step:
            return "nothing was trained, so nothing was saved"
        return f"stopped at step {trainer.global_step}; later steps than the last save are lost"

    def _note(self, asked: int, *_: object) -> None:
        self._asked = max(self._asked, asked)  # SLURM sends SIGTERM after its requeue signal

    def _terminate(self, trainer: Trainer, *_: object) -> None:
        if trainer.state.fn != TrainerFn.FITTING or _is_trained(trainer):
            raise SIGTERMException(EXIT_CODES[STOP])
        self._note(STOP)

    def _interrupt(self, trainer: Trainer, *_: object) -> None:
        self._over = _is_trained(trainer)
        if self._asked or self._over:
            self._restore()
            raise KeyboardInterrupt
        self._note(INTERRUPT)
        print("Ctrl-C: saving after this step; press it again to stop at once", file=sys.stderr)

    def _restore(self) -> None:
        if self._on_interrupt is not None:
            signal.signal(signal.SIGINT, self._on_interrupt)
            self._on_interrupt = None


def _is_trained(trainer: Trainer) -> bool:
    """Return True once all steps are made and saved, and callbacks do what follows training."""
    return trainer.lightning_module._current_fx_name == "on_train_end"
