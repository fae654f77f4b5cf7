"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(root: Path) -> Iterator[Path]:
    """Give a path to write a folder at, hidden beside ``root``; rename it to ``root`` at the end.

    If the block raises, or the process is killed, nothing stands at ``root`` that did not before.
    What killed processes left behind is removed. A folder that stands at ``root`` is replaced.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    building = root.parent / f".{root.name}.writing-{os.getpid()}"
    replaced = root.parent / f".{root.name}.writing-old-{os.getpid()}"
    try:
        yield building
        if root.exists():
            os.replace(root, replaced)
        os.replace(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _sweep(root: Path) -> None:
    for stale in root.parent.glob(f".{root.name}.writing-*"):
        if not _runs(stale.name.rpartition("-")[2]):
            shutil.rmtree(stale, ignore_errors=True)


def _runs(pid: str) -> bool:
    """Whether another process of that number runs."""
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
