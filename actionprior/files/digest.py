"""SHA-256 digests of content, as hexadecimal digits."""

import hashlib
from collections.abc import Buffer
from pathlib import Path


def digest(*parts: str | Buffer) -> str:
    """Return the digest of parts in sequence; text counts as UTF-8."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part.encode() if isinstance(part, str) else part)
    return sha256.hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
