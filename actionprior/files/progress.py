"""Progress of long work, in a terminal or in a log file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_LOG_SECONDS = 30
"""Seconds between two reports of progress in a log file, which keeps each of them."""


def episode_bar(label: str, total: int, *, hidden: bool = False) -> tqdm[Any]:
    """Return a context manager that counts episodes: in a bar, or in a log file now and then.

    Args:
        label: What is done with the episodes.
        total: Number of episodes.
        hidden: Show nothing.
    """
    from tqdm import tqdm  # here, because most commands show no bar

    seconds = 0.1 if sys.stderr.isatty() else _LOG_SECONDS
    return tqdm(total=total, desc=label, unit="episode", mininterval=seconds, disable=hidden)
