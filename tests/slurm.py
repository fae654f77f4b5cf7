"""A SLURM of one node for a test: its own slurmctld and slurmd, in a folder of the test.

Debian: ``apt install slurmctld slurmd slurm-client``. Needs root, as slurmd does.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in ("slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]
if os.geteuid() != 0:
    MISSING.append("root")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SchedulerType=sched/builtin
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which ``sbatch`` and the others speak to this test's SLURM."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    told = CONFIGURATION.format(host=host, folder=folder, ports=_ports(), cores=os.cpu_count())
    (folder / "slurm.conf").write_text(told)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    daemons = []
    try:
        for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with (folder / f"{words[0]}.log").open("wb") as log:
                daemons.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
        wait(lambda: "idle" in ask(environment, "sinfo", "-h", "-o", "%t"), 60)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)


def ask(environment: dict[str, str], *words: str) -> str:
    """What a command of SLURM's says; nothing where it fails."""
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    return run.stdout.strip() if run.returncode == 0 else ""


def wait(done: object, seconds: float) -> None:
    """Wait until ``done()``.

    Raises:
        TimeoutError: it took longer.
    """
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError(f"not done within {seconds} s")
        time.sleep(0.3)


def _ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for found in (one, two):
            found.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], two.getsockname()[1]]
