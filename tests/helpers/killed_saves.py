"""Kill saves of a checkpoint before each disk step (``tests/checkpoints/test_sharded.py``)."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from actionprior.checkpoints.sharded import save_sharded

STEPS = ("fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


def tree(value: float) -> dict[str, object]:
    """Make a checkpoint with two sharded tensors; needs a process group."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    local = torch.full((3, 2), value)
    weights = {name: DTensor.from_local(local, mesh, [Shard(0)]) for name in ("a", "tied")}
    loops = {"fit_loop": {"step": int(value)}}
    return {
        "state_dict": {**weights, "buffer": torch.arange(3)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(value), "m": weights["a"]}}}],
        "pytorch-lightning_version": "2.6.0",
        "loops": loops,
        "global_step": int(value),
    }


def join_group_of_one() -> None:
    """Start a process group with this process as its only member."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)


def save(path: Path, value: float, kill_at: int = -1) -> int:
    """Save a checkpoint and return the number of disk steps; SIGKILL comes before ``kill_at``."""
    count = 0

    def counted(real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return real(*args, **kwargs)

        return call

    kept = {name: getattr(os, name) for name in STEPS}
    checkpoint = tree(value)
    for name, real in kept.items():
        setattr(os, name, counted(real))
    save_sharded(checkpoint, path)
    for name, real in kept.items():
        setattr(os, name, real)
    return count


def main(folder: Path) -> None:
    """Fill ``<k>/a.ckpt``: 1 was saved, then a save of 2 was killed at step k, except the last."""
    for kill_at in range(100):
        child = os.fork()
        if not child:
            join_group_of_one()
            save(folder / str(kill_at) / "a.ckpt", 1.0)
            save(folder / str(kill_at) / "a.ckpt", 2.0, kill_at)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
