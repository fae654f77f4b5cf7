"""The verb in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

COMMAND = [sys.executable, "-c", "from actionprior.cli import main; main()", "serve"]


class Served(NamedTuple):
    """What a client needs to know of it."""

    process: subprocess.Popen[str]
    host: str
    port: int
    said: str


@contextmanager
def served(checkpoint: Path, *words: str) -> Iterator[Served]:
    """``lightning serve`` on a free port, killed where it has not ended by itself."""
    command = [*COMMAND, f"--ckpt_path={checkpoint}", "--port=0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            host, _, port = said.partition("ws://")[2].partition(",")[0].rpartition(":")
            yield Served(process, host, int(port), said)
        finally:
            process.kill()
