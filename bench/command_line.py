"""Run a benchmark from the command line."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actionprior.cli import exit_on_user_error
from actionprior.commands._parser import call


def run[T](measure: Callable[..., T], name: str, args: list[str] | None = None) -> T:
    """Call a benchmark with the options of the command line.

    Args:
        measure: Function of the benchmark; each of its arguments is an option.
        name: Module of the benchmark, as in ``python -m bench.<name>``.
        args: Options; None reads ``sys.argv``.

    Raises:
        SystemExit: With code 2 and one sentence on stderr, for bad input.
    """
    with exit_on_user_error(), without_notes():
        result = call(measure, args, f"python -m bench.{name}")
    return result


@contextmanager
def without_notes() -> Iterator[None]:
    """Context manager: without warnings, and with Lightning's errors only."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
