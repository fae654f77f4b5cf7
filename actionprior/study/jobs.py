"""``lightning`` commands in parallel, with one thread each, which suits small machines."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from actionprior.errors import UserError


class Jobs:
    """Runs ``lightning`` commands in processes, a limited number at a time.

    Each command writes to ``<logs>/<name>.log``. Leaving the context terminates running commands.
    """

    def __init__(self, logs: Path, at_once: int = 2) -> None:
        self.logs = logs
        self.at_once = at_once

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(self.at_once)
        self._waiting: list[Future[object]] = []
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()
        # A scheduler ends a job with SIGTERM, which would leave the child processes running.
        self._on_sigterm = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._stopped.set()
        for process in list(self._running):
            process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def stopped(self) -> bool:
        """Return True once the context is left: no further command starts."""
        return self._stopped.is_set()

    def start(self, name: str, words: list[str]) -> None:
        """Queue ``lightning <words>``."""
        self.submit(lambda: self.run(name, words))

    def submit(
        self, task: Callable[[], object], after: Sequence[Future[object]] = ()
    ) -> Future[object]:
        """Queue a task that calls :meth:`run`, possibly with work before and after it.

        Args:
            task: Function to call.
            after: Queued jobs that must end first.
        """

        def in_turn() -> object:
            for earlier in after:
                earlier.result()
            return task()

        job: Future[object] = self._pool.submit(in_turn)
        self._waiting.append(job)
        return job

    def wait(self) -> None:
        """Wait for all queued jobs.

        Raises:
            UserError: A command failed; the message has its last line and names its log.
        """
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            job.result()

    def run(self, name: str, words: list[str]) -> bool:
        """Run ``lightning <words>`` now. Return False if it was terminated by leaving the context.

        Raises:
            UserError: It failed; the message has its last line and names its log.
        """
        if self.stopped():
            return False
        log, start = self.logs / f"{name}.log", time.monotonic()
        print(f"$ lightning {' '.join(words)}", flush=True)
        # -P: Python must not search the working folder first.
        command = [sys.executable, "-P", "-c", "from actionprior.cli import main; main()", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment
            )
            self._running.add(process)
            if self.stopped():  # the context was left while the process started
                process.terminate()
            code = process.wait()
            self._running.discard(process)
        if code and self.stopped():
            return False
        if code:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise UserError(f"{name} failed: {last[0]} (full log: {log})")
        print(f"{name}: done in {(time.monotonic() - start) / 60:.1f} min", flush=True)
        return True
