"""Find pretrained weights that installed Python packages ship, without importing the packages."""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from actionprior.errors import UserError

AUTO = "auto"
"""Source of weights that stands for an installed package, or else for the model's hub."""
EXTRA = "pretrained"
"""Extra of this project that installs the packages."""


class PackagedFile(NamedTuple):
    """A file of an installed package, and the name and version of the package."""

    path: Path
    package: str


def packaged_file(distribution: str, name: str, sha256: str = "") -> PackagedFile | None:
    """Find a file of an installed package.

    Args:
        distribution: Name of the package in the package index.
        name: Path of the file below the folder into which packages are installed.
        sha256: Expected digest of the file's content; empty accepts any content.

    Returns:
        The file, or None if the package is not installed.

    Raises:
        UserError: The package has no such file, or another content.
    """
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(name)))
    package = f"{distribution} {found.version}"
    if not path.is_file():
        raise UserError(f"package {package} has no file {name}; install the extra {EXTRA!r} again")
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(
            f"{path} of package {package} has an unexpected content; expected SHA-256 {sha256}; "
            f"install the extra {EXTRA!r} again"
        )
    return PackagedFile(path, package)
