"""Formats of our checkpoints: the newest is written, older ones are read as if they were newest.

1: the networks of Stage 2 were the module's own (``prior.…``, ``trunk.…``).
2: they are ``network.…``, a module without Lightning that a robot can load.
"""

from typing import Any

from actionprior.errors import UserError

FORMAT = 2
KEY = "actionprior_format"
_WEIGHTS = ("state_dict", "current_model_state")  # the second is Lightning's weight averaging's
_STAGE2 = "vla"
_NETWORK_PARTS = ("trunk", "prior", "fusion", "history_mlp")


class FormatError(UserError):
    """A file was written by a newer version; the message names it."""


def mark(checkpoint: dict[str, Any]) -> None:
    """Note the newest format in a checkpoint that is about to be written."""
    checkpoint[KEY] = FORMAT


def migrate(checkpoint: dict[str, Any], path: object = "the checkpoint") -> None:
    """Bring a checkpoint to the newest format, in place.

    Raises:
        FormatError: it is of a newer format than this version knows.
    """
    found = checkpoint.get(KEY, 1)
    if not isinstance(found, int) or found > FORMAT:
        raise FormatError(
            f"{path} is of format {found!r}, and this version of actionprior reads up to "
            f"{FORMAT}; update actionprior"
        )
    if found < 2 and _STAGE2 in checkpoint:
        for key in _WEIGHTS:
            if key in checkpoint:
                checkpoint[key] = {_in_network(k): v for k, v in checkpoint[key].items()}
    if found < FORMAT:
        mark(checkpoint)


def _in_network(name: str) -> str:
    return f"network.{name}" if name.partition(".")[0] in _NETWORK_PARTS else name
