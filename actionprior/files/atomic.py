"""Replace a file or folder so that a kill leaves the old or the new one, never half of either."""

import os
import shutil
from pathlib import Path
from uuid import uuid4


def atomic_replace(new: Path, target: Path) -> None:
    """Give ``new``, which is flushed, the name ``target``, also where one of them is a folder.

    What had the name goes aside before and is removed after, since a folder cannot be replaced at
    once; a kill between leaves it under a name that is a checkpoint's, too.
    """
    aside = None
    if target.is_dir() or (new.is_dir() and target.exists()):
        aside = target.rename(target.with_name(f".{uuid4().hex[:8]}.ckpt"))
    new.replace(target)
    sync(target.parent)
    if aside is not None:
        old = aside.rename(aside.with_suffix(".part"))  # half of it is no checkpoint
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()


def sync(path: Path) -> None:
    """Let a file's content, or a folder's list of names, reach the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
