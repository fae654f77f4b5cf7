"""A cluster's signal is heeded between two steps, on all ranks at the same one."""

import signal
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException


class RequeueBetweenSteps(Callback):
    """Under SLURM: on the requeue signal, finish the step, save, requeue and stop.

    Lightning's own handler saves wherever the signal finds the process: between the optimiser's
    step and the schedule's the checkpoint is of neither step, and ranks that are found at
    different places wait for each other in different collectives.
    """

    def __init__(self) -> None:
        self._active = False
        self._signalled: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal; Lightning leaves a handler alone that is there before its own."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._active = True
            signal.signal(environment.requeue_signal or signal.SIGUSR1, self._note)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:  # noqa: ANN401
        """Save and requeue where any rank had the signal.

        Raises:
            SIGTERMException: then, which ends the process with code 0.
        """
        signalled = self._signalled is not None
        if self._active and trainer.strategy.reduce_boolean_decision(signalled, all=False):
            trainer._signal_connector._slurm_sigusr_handler_fn(
                self._signalled or signal.SIGUSR1,
                None,  # type: ignore[arg-type]  # the frame, which it does not look at
            )
            raise SIGTERMException

    def _note(self, signum: int, _: object) -> None:
        self._signalled = signum
