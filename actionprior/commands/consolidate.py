"""Make one checkpoint file of a folder of shards: what DDP, Stage 2, a robot and export read."""

from pathlib import Path


def consolidate(folder: Path, file: Path) -> None:
    """Write the file; it appears whole or not at all, and one that stands there is replaced.

    Needs memory for all weights and moments.

    Args:
        folder: of ``ShardedStrategy(sharded_checkpoints=True)``.
        file: to write, ``….ckpt``.

    Raises:
        CheckpointError: ``folder`` is damaged or not one of shards, or the disk is full.
        UserError: ``file`` is a folder or lies in ``folder``.
    """
    from actionprior.checkpoints.atomic import AtomicCheckpointIO
    from actionprior.checkpoints.sharded import ShardedCheckpoint
    from actionprior.errors import UserError

    checkpoint = ShardedCheckpoint(folder)
    if file.is_dir() or file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file} is a folder or lies in {folder}; choose another file")
    AtomicCheckpointIO().save_checkpoint(checkpoint.full_checkpoint(), file)


def main(args: list[str]) -> None:
    """Run the verb: ``lightning consolidate FOLDER FILE.ckpt``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="lightning consolidate")
    parser.add_argument("folder", type=str, help="a sharded checkpoint")
    parser.add_argument("file", type=str, help="the checkpoint to write")
    given = parser.parse_args(args)
    consolidate(Path(given["folder"]), Path(given["file"]))
    print(f"{given['file']}: written")
