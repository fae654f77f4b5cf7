"""Digests depend only on the concatenated content."""

import hashlib
from pathlib import Path

import numpy as np

from actionprior.files.digest import digest, file_digest


def test_parts_are_hashed_in_sequence(tmp_path: Path) -> None:
    expected = hashlib.sha256("µb".encode() + bytes([1, 2])).hexdigest()
    assert digest("µ", b"b", np.array([1, 2], np.uint8)) == expected
    (tmp_path / "a").write_bytes("µb".encode() + bytes([1, 2]))
    assert file_digest(tmp_path / "a") == expected
