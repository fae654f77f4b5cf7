"""Commands side by side: what they print, how they fail, and that none is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from actionprior.errors import UserError
from actionprior.study.jobs import Jobs


def test_a_command_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    with Jobs(tmp_path) as jobs:
        jobs.start("wrong", ["demo", "--preset=none"])
        with pytest.raises(UserError, match=r"wrong failed: .*preset.*none.*wrong\.log"):
            jobs.wait()


def test_a_task_waits_for_what_it_needs_and_for_nothing_else(tmp_path: Path) -> None:
    ended: list[str] = []
    last_needed = threading.Event()

    def needed() -> None:
        assert last_needed.wait(60)
        ended.append("needed")

    def free() -> None:
        ended.append("free")
        last_needed.set()

    with Jobs(tmp_path, at_once=2) as jobs:
        first = jobs.submit(needed)
        jobs.submit(free)
        jobs.submit(lambda: ended.append("after"), after=[first])
        jobs.wait()
    assert ended == ["free", "needed", "after"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the children from /proc")
def test_sigterm_ends_the_commands_too(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from actionprior.study.jobs import Jobs
with Jobs(Path({str(tmp_path)!r})) as jobs:
    jobs.start("long", ["ground", "--steps=1000000", "--samples=64", "--processes=1"])
    jobs.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    log = tmp_path / "long.log"
    deadline = time.monotonic() + 60
    while not (log.is_file() and "drawing" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    threads = Path(f"/proc/{parent.pid}/task").iterdir()
    children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    assert children
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 128 + signal.SIGTERM
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
