"""Folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(root: Path) -> Iterator[Path]:
    """Context manager: write a folder at the path that it gives, which then replaces ``root``.

    The path is hidden beside ``root`` and does not exist yet. If the block raises or the process
    is killed, ``root`` keeps what it held. What killed processes left behind is removed.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
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


def _remove_abandoned(root: Path) -> None:
    for folder in root.parent.glob(f".{root.name}.writing-*"):
        if not _other_process_runs(folder.name.rpartition("-")[2]):
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
