"""What both LightningModules need of the trainer's data module."""

from collections.abc import Callable
from pathlib import Path

from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn

from actionprior.batch import TrajectoryBatch
from actionprior.checkpoints.split import recorded_split
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment.normalization import Normalizer
from actionprior.embodiment.recorded_ranges import widen_ranges
from actionprior.errors import UserError
from actionprior.networks.motion_prior import PriorArchitecture


def embodied_data_module(module: LightningModule) -> EmbodiedDataModule:
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


def data_of_run(
    module: LightningModule, architecture: PriorArchitecture, prior_checkpoint: str
) -> EmbodiedDataModule:
    """Return the trainer's DataModule, which holds out what the prior's checkpoint held out.

    The command line names the checkpoint before the data are read. In a script only the module
    knows it.

    Args:
        module: Module of the run.
        architecture: Architecture of its prior.
        prior_checkpoint: Checkpoint that the module started from; empty for none.

    Raises:
        UserError: The data are no ``EmbodiedDataModule``, or their windows do not fit.
        CheckpointError: The checkpoint is missing or damaged by now.
    """
    data = embodied_data_module(module)
    check_lengths(architecture, data)
    if prior_checkpoint and not data.split_checkpoint:
        data.follow_split(recorded_split(prior_checkpoint), prior_checkpoint)
    return data


def fit_statistics(
    module: LightningModule, normalizer: Normalizer, sample: Callable[[], TrajectoryBatch]
) -> None:
    """Fit the statistics of robots that have none yet, and widen the recorded ranges of all.

    It does nothing outside of training.

    Args:
        module: Module in training.
        normalizer: Normaliser that holds the statistics.
        sample: Function that returns training windows of every robot.
    """
    if module.trainer.state.fn != TrainerFn.FITTING or normalizer.ranges_are_wide:
        return
    windows = sample()
    if normalizer.missing:
        normalizer.fit(windows)
    widen_ranges(normalizer.ranges, normalizer.embodiments, windows)
    normalizer.ranges_are_wide = True  # weight averaging configures the module once more


def check_lengths(
    architecture: PriorArchitecture, data: EmbodiedDataModule, checkpoint: str | Path = ""
) -> None:
    """Refuse windows that do not fit the architecture.

    Args:
        architecture: Architecture of the prior.
        data: Data of the recipe.
        checkpoint: File that the architecture comes from; empty: the recipe.

    Raises:
        UserError: naming both lengths, and where each comes from.
    """
    for name in ("chunk_length", "history_length"):
        found, wanted = getattr(data, name), getattr(architecture, name)
        if found != wanted:
            where = f"checkpoint {checkpoint}" if checkpoint else "the model's architecture"
            raise UserError(
                f"the recipe's data.{name} is {found}, but {name} is {wanted} in {where}; "
                f"set --data.{name} {wanted}"
            )
