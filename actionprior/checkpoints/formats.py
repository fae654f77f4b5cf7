"""Format number of checkpoints and exported folders, and the check of it."""

from typing import Any

from actionprior.checkpoints import keys
from actionprior.errors import UserError

FORMAT = 2
"""Raised when the meaning of written files changes. Version 0.1.0 writes 2."""


class FormatError(UserError):
    """A file has a format that this version cannot read; the message names the file."""


def check_format(found: object, path: object) -> None:
    """Refuse a format other than ``FORMAT``.

    Args:
        found: Format number that the file holds.
        path: Name of the file, for the message.

    Raises:
        FormatError: naming both formats.
    """
    if found == FORMAT:
        return
    newer = isinstance(found, int) and found > FORMAT
    advice = "update actionprior" if newer else "no released version wrote it: create it again"
    raise FormatError(
        f"{path} is of format {found!r}, and this version of actionprior reads format {FORMAT}; "
        f"{advice}"
    )


def check_checkpoint_format(checkpoint: dict[str, Any], path: object) -> None:
    """Refuse a checkpoint of another format; models of other projects have none.

    Raises:
        FormatError: as ``check_format``.
    """
    if checkpoint.keys() & {keys.FORMAT, keys.PRIOR, keys.POLICY}:
        check_format(checkpoint.get(keys.FORMAT), path)
