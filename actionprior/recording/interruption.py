"""End a recording between two episodes, so that Ctrl-C does not cost the episodes before it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_between_episodes() -> Iterator[Callable[[], bool]]:
    """Context manager: note the first Ctrl-C or SIGTERM, and let a second one end the process.

    It yields the function that reports if a signal has come. Python sets handlers in the main
    thread only. In another thread, nothing is noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        restore()
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        print(
            f"\n{name}: recording stops after this episode and keeps what is recorded; a second "
            "Ctrl-C discards it",
            file=sys.stderr,
        )

    try:
        for number in before:
            signal.signal(number, note)
        yield lambda: noted
    finally:
        restore()
