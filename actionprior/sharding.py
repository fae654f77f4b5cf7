"""FSDP2: weights, gradients and moments in shards, one a process.

Source: torch's ``fully_shard`` (arXiv 2304.11277, Sec. 3, a parameter at a time).
"""

from datetime import timedelta
from pathlib import Path
from typing import Any, override

from lightning import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from actionprior.checkpoint_io import read_local, require_lightning
from actionprior.errors import UserError
from actionprior.layers import repeated_layers

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
"""What Lightning calls in the place of ``forward``."""


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, with checkpoints that are one file, as DDP's are.

    Rank 0 gathers weights and moments to write a checkpoint, so a run goes on from it on any
    number of processes, and Stage 2, ``Policy`` and ``lightning export`` read it. Not sharded
    ones: torch's keep what is in which file in a pickle.
    """

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=10),
    ) -> None:
        """Set up.

        Args:
            process_group_backend: None: nccl on GPUs, gloo on CPUs.
            timeout: after which ranks beside one that hangs end.
        """
        super().__init__(1, 1, False, process_group_backend, timeout)

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a whole file, whatever ``weights_only`` says without unpickling.

        Raises:
            CheckpointError: as ``read_checkpoint``.
        """
        if self.is_global_zero:  # Lightning reads it bypassing the checkpoint plugin
            require_lightning(read_local(Path(checkpoint_path)), checkpoint_path)
        self.barrier()
        return super().load_checkpoint(checkpoint_path, weights_only=True)


def shard(module: LightningModule, mesh: DeviceMesh) -> None:
    """Let each process keep its share of each parameter; layers are gathered one at a time.

    Args:
        module: with its final parameters; a second call does nothing.
        mesh: one-dimensional, of the processes.

    Raises:
        UserError: a callback averages weights, of which it would keep a whole copy.
    """
    if isinstance(module, FSDPModule):
        return
    for callback in module.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            raise UserError(
                f"{type(callback).__name__} cannot average sharded weights; take it out of the "
                "recipe, or use DDPStrategy"
            )
    for layer in repeated_layers(module):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for name in STEPS:
        register_fsdp_forward_method(module, name)


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which this process may hold a shard; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
