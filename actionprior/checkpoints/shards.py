"""Rows of tensors that each process holds, their files, and calls that all processes make."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from actionprior.checkpoints.reading import CheckpointError
from actionprior.errors import UserError
from actionprior.files.atomic import usual_permissions

_STARTS = "first_rows"  # key of a file's metadata: index of the first row of each tensor in it


def on_all_ranks[T](step: Callable[[], T]) -> list[T]:
    """Call ``step`` on every rank and return the results in the order of the ranks.

    Raises:
        CheckpointError: on every rank, if ``step`` fails on any of them.
    """
    mine: list[T] = []
    fault: Exception | None = None
    try:
        mine.append(step())
    except (OSError, RuntimeError, ValueError) as error:
        fault = error
    found = all_gather((mine, fault and (str(fault) or type(fault).__name__)))
    if fault is not None:
        raise fault
    for rank, (_, message) in enumerate(found):
        if message is not None:
            raise CheckpointError(f"{message} (found by rank {rank})")
    return [result for results, _ in found for result in results]


def all_gather[T](mine: T) -> list[T]:
    """Gather plain data from every process, in the order of the ranks."""
    found = [mine] * distributed.get_world_size()
    distributed.all_gather_object(found, mine)
    return found


def share(rows: int, mesh: DeviceMesh) -> tuple[int, int]:
    """Return how many of ``rows`` rows this process holds, and the index of its first one."""
    count, start = Shard.local_shard_size_and_offset(rows, mesh.size(), mesh.get_local_rank())
    return int(count), int(start)


def as_dtensor(rows: Tensor, like: Tensor, mesh: DeviceMesh) -> DTensor:
    """Make a tensor shaped ``like``, of which this process holds ``rows``."""
    return DTensor.from_local(
        rows, mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride()
    )


def keep_own_rows(tensor: Tensor, mesh: DeviceMesh) -> DTensor:
    """Shard a tensor that every process holds in full: keep only this process's rows."""
    count, start = share(tensor.shape[0], mesh)
    return as_dtensor(tensor[start : start + count].clone(), tensor, mesh)


def write_rows(tensors: Mapping[str, DTensor], file: Path, checkpoint: Path) -> None:
    """Write the rows that this process holds; ``opened_rows`` reads them.

    Args:
        tensors: Tensors by name.
        file: File to write.
        checkpoint: Path of the whole checkpoint, for messages.

    Raises:
        CheckpointError: the disk is full, or a tensor is not sharded by rows.
    """
    rows: dict[str, Tensor] = {}
    starts: dict[str, int] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.placements != (Shard(0),):
            raise CheckpointError(
                f"checkpoint {checkpoint} cannot be saved: {name} is sharded as "
                f"{tensor.placements}, expected by rows"
            )
        count, start = share(tensor.shape[0], tensor.device_mesh)
        if count:
            mine = tensor.to_local().cpu().contiguous()
            memory = mine.untyped_storage().data_ptr()
            # Clone tied weights, because safetensors refuses shared memory.
            rows[name], starts[name] = mine.clone() if memory in seen else mine, start
            seen.add(memory)
    try:
        with usual_permissions(file):
            save_file(rows, file, metadata={_STARTS: json.dumps(starts)})
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint} cannot be saved: {error}; what was saved before is kept"
        ) from error


@contextmanager
def opened_rows(
    files: Iterable[Path], checkpoint: Path
) -> Iterator[Callable[[str, Tensor, int, int], Tensor]]:
    """Context manager: a function ``rows(name, like, start, stop)`` that reads rows of a tensor.

    ``like`` is a meta tensor of the full shape. The rows in all files must add up to it.

    Args:
        files: Files that ``write_rows`` wrote.
        checkpoint: Path of the whole checkpoint, for messages.

    Raises:
        CheckpointError: the rows do not add up, or cannot be read.
    """
    pieces: dict[str, list[tuple[int, Any]]] = {}

    def rows(name: str, like: Tensor, start: int, stop: int) -> Tensor:
        parts, end = [like.new_empty(0, *like.shape[1:], device="cpu")], 0
        for first, piece in sorted(pieces.get(name, []), key=lambda piece: piece[0]):
            count, *others = piece.get_shape()
            if first != end or others != list(like.shape[1:]):
                break
            end += count
            if max(first, start) < min(end, stop):
                parts.append(piece[max(start - first, 0) : min(stop, end) - first])
        if end != like.shape[0] or len({part.dtype for part in parts}) > 1:
            raise CheckpointError(
                f"checkpoint {checkpoint} is damaged: its shards do not make up {name} "
                f"{tuple(like.shape)}"
            )
        return torch.cat(parts)

    try:
        with ExitStack() as stack:
            for file in files:
                opened = stack.enter_context(safe_open(file, framework="pt"))
                starts = json.loads((opened.metadata() or {})[_STARTS])
                for name in opened.keys():  # noqa: SIM118  not a dict
                    piece = int(starts[name]), opened.get_slice(name)
                    pieces.setdefault(name, []).append(piece)
            yield rows
    except UserError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint} is damaged: its shards cannot be read ({error})"
        ) from error
