"""Merge a sharded checkpoint into one file, which every other command reads."""

from pathlib import Path

from actionprior.commands._parser import call


def consolidate(folder: Path, file: Path) -> None:
    """Merge a sharded checkpoint into one file.

    DDP, Stage 2, robots and `lightning export` read such a file. The file is written completely or
    not at all, and replaces an older one. The merge needs memory for all weights and the
    optimiser's moments.

    Args:
        folder: Folder that `ShardedStrategy(sharded_checkpoints=True)` wrote.
        file: Checkpoint file to write, such as policy.ckpt.

    Raises:
        CheckpointError: ``folder`` is damaged or not a sharded checkpoint, or the disk is full.
        UserError: ``file`` is a folder or lies in ``folder``.
    """
    from actionprior.checkpoints.atomic import AtomicCheckpointIO
    from actionprior.checkpoints.sharded import ShardedCheckpoint
    from actionprior.errors import UserError

    checkpoint = ShardedCheckpoint(folder)
    if file.is_dir() or file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file} is a folder or lies in {folder}; choose another file")
    AtomicCheckpointIO().save_checkpoint(checkpoint.full_checkpoint(), file)
    print(f"{file}: written")


def main(args: list[str]) -> None:
    """Run the verb: ``lightning consolidate FOLDER FILE.ckpt``."""
    call(consolidate, args, "lightning consolidate", as_positional=True)
