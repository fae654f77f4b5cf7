"""Folders appear complete, and no failure loses the folder that they replace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actionprior.files.folders import atomic_folder


def write(root: Path, text: str) -> None:
    with atomic_folder(root) as building:
        building.mkdir()
        (building / "file").write_text(text)


def fail(root: Path) -> None:
    with atomic_folder(root) as building:
        building.mkdir()
        raise RuntimeError("a full disk")


def nothing(root: Path) -> None:
    with atomic_folder(root):
        pass


def test_a_folder_replaces_another_and_leaves_nothing_else(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write(tmp_path / "root", text)
        assert (tmp_path / "root" / "file").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_an_error_keeps_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "root", "old")
    with pytest.raises(RuntimeError, match="a full disk"):
        fail(tmp_path / "root")
    with pytest.raises(FileNotFoundError):
        nothing(tmp_path / "root")
    assert (tmp_path / "root" / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


KILLED = """
import os, pathlib, sys
from actionprior.files import folders
replace = os.replace
def killed_after_the_first(source, target):
    replace(source, target)
    os._exit(9)
folders.os.replace = killed_after_the_first
with folders.atomic_folder(pathlib.Path(sys.argv[1])) as building:
    building.mkdir()
"""


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], env=os.environ, timeout=60)
    assert killed.returncode == 9
    assert not root.exists()
    with pytest.raises(RuntimeError, match="a full disk"):
        fail(root)
    assert (root / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["root"]
