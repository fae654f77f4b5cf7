"""What each of several processes has of a tensor, its rows in files, and what all do together."""

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

_STARTS = "first_rows"  # key of a file's metadata


def on_all_ranks[T](step: Callable[[], T]) -> list[T]:
    """What ``step`` gives on each process, by rank.

    Raises:
        CheckpointError: on all processes, where ``step`` fails on any.
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
    for rank, (_, told) in enumerate(found):
        if told is not None:
            raise CheckpointError(f"{told} (found by rank {rank})")
    return [result for results, _ in found for result in results]


def all_gather[T](mine: T) -> list[T]:
    """``mine`` of each process, by rank; plain data."""
    found = [mine] * distributed.get_world_size()
    distributed.all_gather_object(found, mine)
    return found


def share(rows: int, mesh: DeviceMesh) -> tuple[int, int]:
    """How many of so many rows this process has, and the first of them."""
    count, start = Shard.local_shard_size_and_offset(rows, mesh.size(), mesh.get_local_rank())
    return int(count), int(start)


def as_dtensor(rows: Tensor, like: Tensor, mesh: DeviceMesh) -> DTensor:
    """The tensor shaped ``like``, of which this process has ``rows``."""
    return DTensor.from_local(
        rows, mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride()
    )


def my_rows(tensor: Tensor, mesh: DeviceMesh) -> DTensor:
    """A tensor that this process has whole, as one of which it keeps its rows alone."""
    count, start = share(tensor.shape[0], mesh)
    return as_dtensor(tensor[start : start + count].clone(), tensor, mesh)


def write_rows(tensors: Mapping[str, DTensor], file: Path, told: Path) -> None:
    """Write the rows that this process has, to be read with ``opened_rows``.

    Raises:
        CheckpointError: naming the checkpoint ``told``: the disk is full, or a tensor is sharded
            in another way than by rows.
    """
    rows: dict[str, Tensor] = {}
    starts: dict[str, int] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.placements != (Shard(0),):
            raise CheckpointError(
                f"checkpoint {told} cannot be saved: {name} is sharded as {tensor.placements}, "
                "expected by rows"
            )
        count, start = share(tensor.shape[0], tensor.device_mesh)
        if count:
            mine = tensor.to_local().cpu().contiguous()
            memory = mine.untyped_storage().data_ptr()
            # safetensors refuses tied weights
            rows[name], starts[name] = mine.clone() if memory in seen else mine, start
            seen.add(memory)
    try:
        save_file(rows, file, metadata={_STARTS: json.dumps(starts)})
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {told} cannot be saved: {error}; what was saved before is kept"
        ) from error


@contextmanager
def opened_rows(
    files: Iterable[Path], told: Path
) -> Iterator[Callable[[str, Tensor, int, int], Tensor]]:
    """A function that reads rows of a tensor by its name: the first, and the one after the last.

    Its second argument is a meta tensor, which the rows in all files must make up.

    Raises:
        CheckpointError: naming the checkpoint ``told``: they do not, or cannot be read.
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
                f"checkpoint {told} is damaged: its shards do not make up {name} "
                f"{tuple(like.shape)}"
            )
        return torch.cat(parts)

    try:
        with ExitStack() as stack:
            for file in files:
                opened = stack.enter_context(safe_open(file, framework="pt"))
                starts = json.loads((opened.metadata() or {})[_STARTS])
                for name in opened.keys():  # noqa: SIM118  it has keys alone
                    piece = int(starts[name]), opened.get_slice(name)
                    pieces.setdefault(name, []).append(piece)
            yield rows
    except UserError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint {told} is damaged: its shards cannot be read ({error})"
        ) from error
