"""``lightning serve`` in its own process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

COMMAND = [sys.executable, "-c", "from actionprior.cli import main; main()", "serve"]


class Served(NamedTuple):
    """Process of a server, its address and its first line of output."""

    process: subprocess.Popen[str]
    host: str
    port: int
    said: str


@contextmanager
def served(checkpoint: Path, *words: str, stderr: IO[str] | None = None) -> Iterator[Served]:
    """Run ``lightning serve`` on a free port, and kill it at the end if it still runs."""
    command = [*COMMAND, f"--ckpt_path={checkpoint}", "--port=0", *words]
    output = subprocess.PIPE
    with subprocess.Popen(command, stdout=output, stderr=stderr, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            host, _, port = said.partition("ws://")[2].partition(",")[0].rpartition(":")
            yield Served(process, host, int(port), said)
        finally:
            process.kill()
