"""Folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REPLACED = ".writing-old-"


@contextmanager
def atomic_folder(root: Path) -> Iterator[Path]:
    """Context manager: write a folder at the path that it gives, which then replaces ``root``.

    The path is hidden beside ``root`` and does not exist yet. If the block raises or the process
    is killed, ``root`` keeps what it held. What killed processes left behind is removed. A kill
    between the two renames at the end leaves the old folder hidden; the next call restores it.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(root)
    building = root.parent / f".{root.name}.writing-{os.getpid()}"
    replaced = root.parent / f".{root.name}{_REPLACED}{os.getpid()}"
    try:
        yield building
        if root.exists():
            os.replace(root, replaced)
        try:
            os.replace(building, root)
        except OSError:
            if replaced.exists():
                os.replace(replaced, root)
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if root.exists():
            shutil.rmtree(replaced, ignore_errors=True)


def _clean_up(root: Path) -> None:
    """Restore the folder that a killed process moved away, and delete what killed ones left."""
    for folder in sorted(root.parent.glob(f".{root.name}.writing-*")):
        if _other_process_runs(folder.name.rpartition("-")[2]):
            continue
        if folder.name.startswith(f".{root.name}{_REPLACED}") and not root.exists():
            os.replace(folder, root)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _other_process_runs(pid: str) -> bool:
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    if sys.platform == "win32":  # os.kill would end the process there
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
