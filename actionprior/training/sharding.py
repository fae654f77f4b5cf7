"""FSDP2: each process holds a shard of the weights, gradients and optimiser moments.

Source: torch's ``fully_shard`` (arXiv 2304.11277, Sec. 3, sharded per parameter).
"""

from datetime import timedelta
from pathlib import Path
from typing import Any, override

import torch
from lightning import LightningModule
from lightning.fabric.utilities import rank_zero_warn
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Size, Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    FullyShardedDataParallel,
    OptimStateKeyType,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import check_checkpoint_format
from actionprior.checkpoints.reading import CheckpointError, read_local, require_lightning
from actionprior.checkpoints.sharded import ShardedCheckpoint, save_sharded
from actionprior.checkpoints.shards import keep_own_rows, on_all_ranks
from actionprior.errors import UserError, shorten
from actionprior.training.layers import repeated_layers

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
"""Methods that Lightning calls instead of ``forward``."""


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes; checkpoints are single files, as with DDP, or sharded folders.

    For a single file, rank 0 gathers weights and moments. Stage 2, ``Policy``, ``lightning
    export`` and runs with DDP read it. With ``sharded_checkpoints``, a checkpoint is a folder to
    which each process writes its shards; ``lightning consolidate`` makes a single file of it. A
    run resumes from either on any number of processes.
    """

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=10),
        sharded_checkpoints: bool = False,
    ) -> None:
        """Create the strategy.

        Args:
            process_group_backend: Backend of torch.distributed; None: nccl on GPUs, gloo on CPUs.
            timeout: Time after which the other ranks end if one hangs.
            sharded_checkpoints: Write checkpoints as folders of shards, which must be on a disk
                that all nodes share; for models that do not fit into the memory of rank 0's host.
        """
        super().__init__(1, 1, sharded_checkpoints, process_group_backend, timeout)

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return moments by parameter number, as in a checkpoint that is a single file."""
        state = super().optimizer_state(optimizer)
        if not self._save_distributed_checkpoint:
            return state
        assert self.model is not None
        return FullyShardedDataParallel.rekey_optim_state_dict(
            state, OptimStateKeyType.PARAM_ID, self.model
        )

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` atomically.

        Raises:
            CheckpointError: the disk is full, not writable or not shared.
        """
        if not self._save_distributed_checkpoint:
            ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)
        elif storage_options is not None or not _is_local_file_protocol(filepath):
            raise CheckpointError(
                f"checkpoint {filepath} cannot be saved: sharded ones can only go to local or "
                "mounted folders; leave sharded_checkpoints out"
            )
        else:
            save_sharded(checkpoint, filepath)

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load this process's share of weights and moments; return the rest of the checkpoint.

        ``weights_only`` has no effect, because nothing is unpickled.

        Raises:
            CheckpointError: as ``read_checkpoint``, or the weights do not fit.
        """
        path, mesh = Path(self.broadcast(checkpoint_path)), self.device_mesh["data_parallel"]
        checkpoint: dict[str, Any] = {}
        on_all_ranks(lambda: self._verify(path))
        on_all_ranks(lambda: checkpoint.update(_read(path, mesh)))
        assert self.lightning_module is not None
        resume_from_raw_weights(self.lightning_module, checkpoint, path)
        weights, states = (checkpoint.pop(key, {}) for key in (keys.WEIGHTS, keys.OPTIMIZERS))
        assert self.model is not None
        for name, held in get_model_state_dict(self.model).items():
            if isinstance(held, DTensor) and name in weights:
                weights[name] = _sharded(weights[name], mesh)
        options = StateDictOptions(strict=self.lightning_module.strict_loading)
        try:
            set_model_state_dict(self.model, weights, options=options)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: weights do not fit the model ({shorten(error)})"
            ) from error
        try:
            for optimizer, saved in zip(self.optimizers, states, strict=False):
                _load_moments(optimizer, saved, mesh)
        except ValueError as error:
            raise CheckpointError(f"{path}: moments do not fit the optimiser ({error})") from error
        return checkpoint

    def _verify(self, path: Path) -> None:
        if path.is_dir():
            ShardedCheckpoint(path).verify(self.global_rank, self.world_size)
        elif self.is_global_zero:
            require_lightning(read_local(path), path)


def _read(path: Path, mesh: DeviceMesh) -> dict[str, Any]:
    """Read a verified checkpoint: this process's share of a folder, or a memory-mapped file."""
    if path.is_dir():
        return ShardedCheckpoint(path).shares(mesh)
    checkpoint: dict[str, Any] = torch.load(path, "cpu", mmap=True, weights_only=True)
    check_checkpoint_format(checkpoint, path)
    return checkpoint


def _load_moments(optimizer: Optimizer, saved: dict[str, Any], mesh: DeviceMesh) -> None:
    """Load an optimiser's state, matching parameters by place: DDP numbers them differently."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    shapes = {number: p.shape for number, p in zip(numbers, held, strict=False)}
    state = {
        number: {
            name: _sharded(value, mesh) if _is_like(value, shapes.get(number)) else value
            for name, value in moments.items()
        }
        for number, moments in saved["state"].items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def _is_like(value: object, shape: Size | None) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


def _sharded(value: Tensor, mesh: DeviceMesh) -> Tensor:
    return value if isinstance(value, DTensor) else keep_own_rows(value, mesh)


def shard(module: LightningModule, mesh: DeviceMesh) -> None:
    """Shard each parameter over the processes; layers are gathered one at a time.

    Args:
        module: Module with its final parameters; a second call does nothing.
        mesh: One-dimensional mesh of the processes.

    Raises:
        UserError: a callback averages weights, of which it would keep a full copy.
    """
    if isinstance(module, FSDPModule):
        return
    for callback in module.trainer.callbacks:  # type: ignore[attr-defined]  # typed as Fabric's too
        if isinstance(callback, WeightAveraging):
            raise UserError(
                f"{type(callback).__name__} cannot average sharded weights; remove it from the "
                "recipe, or use DDPStrategy"
            )
    for layer in repeated_layers(module):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for name in STEPS:
        register_fsdp_forward_method(module, name)


def resume_from_raw_weights(
    module: LightningModule, checkpoint: dict[str, Any], path: object
) -> None:
    """Resume from raw weights if the checkpoint has averaged ones but this run does not average.

    Lightning's ``WeightAveraging`` saves the averages in place of the weights. Moments and
    schedule belong to the raw weights.

    Args:
        module: Module in training.
        checkpoint: Checkpoint to resume from, changed in place.
        path: File of the checkpoint, for the warning.
    """
    trainer = module.trainer
    averages = any(isinstance(c, WeightAveraging) for c in trainer.callbacks)  # type: ignore[attr-defined]  # typed as Fabric's too
    if trainer.state.fn == TrainerFn.FITTING and not averages and keys.RAW_WEIGHTS in checkpoint:
        rank_zero_warn(
            f"{path} has averaged and raw weights; this run averages none and resumes from the "
            "raw ones"
        )
        checkpoint[keys.WEIGHTS] = checkpoint.pop(keys.RAW_WEIGHTS)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor, gathered if it is sharded; call it on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
