"""Files that appear complete or not at all: a kill leaves the old or the new one, never half."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Context manager: write a file at the path that it gives, which then replaces ``target``.

    The path lies beside ``target``, whose folder is created if missing. If the block raises,
    ``target`` keeps what it held and nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name must not contain the target's: Lightning finds checkpoints by parts of names.
    part = target.parent / f".{uuid4().hex[:8]}.part"
    try:
        with usual_permissions(part):
            yield part
        sync(part)
        atomic_replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def usual_permissions(path: Path) -> Iterator[None]:
    """Context manager: give a file that is written in it the permissions of any new file.

    safetensors writes files that only their owner can read, whatever the umask says.
    """
    path.touch()
    usual = path.stat().st_mode
    yield
    if path.stat().st_mode != usual:
        with suppress(OSError):  # some file systems have no permissions
            path.chmod(usual)


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 text file."""
    with atomic_file(path) as part:
        part.write_text(text, "utf-8")


def write_json(data: object, path: Path) -> None:
    """Write plain data as a JSON file."""
    write_text(json.dumps(data, indent=2) + "\n", path)


def atomic_replace(new: Path, target: Path) -> None:
    """Rename ``new``, whose content is flushed, to ``target``; both may be files or folders.

    A folder cannot be replaced in one step: the old one is renamed first and removed last. A kill
    in between leaves it under another name that ends in ``.ckpt``, so that a resumed run finds it.
    """
    aside = None
    if target.is_dir() or (new.is_dir() and target.exists()):
        aside = target.rename(target.with_name(f".{uuid4().hex[:8]}.ckpt"))
    new.replace(target)
    sync(target.parent)
    if aside is not None:
        old = aside.rename(aside.with_suffix(".part"))  # half a checkpoint must not look like one
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
