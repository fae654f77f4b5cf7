"""A SLURM for a test, of one node or of the hosts given: its own daemons, in a folder of the test.

Debian: ``apt install slurmctld slurmd slurm-client``. Needs root, as slurmd does.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.hosts import Host

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in ("slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]
if os.geteuid() != 0:
    MISSING.append("root")

PAUSE = 5.0
"""How long a job is left waiting before it is started [s]: one that starts in the second in which
its last try was killed is taken for that one, and given up."""
CONFIGURATION = """
ClusterName=test
SlurmctldHost={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/steps.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SchedulerType=sched/builtin
MpiDefault=none
ReturnToService=2
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Here(Host):
    """This machine as it is."""

    def words(self, *words: str) -> list[str]:
        return list(words)


@contextmanager
def cluster(folder: Path, hosts: Sequence[Host] = ()) -> Iterator[dict[str, str]]:
    """The environment in which ``sbatch`` and the others speak to this test's SLURM.

    Args:
        folder: of its own, for what the daemons keep and say.
        hosts: its nodes, of which the first has the controller; none: this machine alone.
    """
    hosts = hosts or [Here(socket.gethostname().partition(".")[0], "127.0.0.1", os.getpid())]
    (folder / "state").mkdir(parents=True)
    # Not in the test's folder: a job's socket lies there, and its whole path takes 107 bytes.
    spool = Path(tempfile.mkdtemp(prefix="slurm"))
    for host in hosts:
        (spool / host.name).mkdir()
    node = "NodeName={} NodeAddr={} CPUs={} State=UNKNOWN"
    nodes = [node.format(host.name, host.address, os.cpu_count()) for host in hosts]
    first = hosts[0]
    told = CONFIGURATION.format(
        control=f"{first.name}({first.address})",
        nodes="\n".join(nodes),
        folder=folder,
        spool=spool,
        ports=_ports(),
    )
    (folder / "slurm.conf").write_text(told)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}

    def idle() -> bool:
        states = ask(environment, *first.words("sinfo", "-h", "-N", "-o", "%t")).split()
        return states == ["idle"] * len(hosts)

    daemons = []
    try:
        starts = [(first, ["slurmctld", "-D"])]
        starts += [(host, ["slurmd", "-D", "-N", host.name]) for host in hosts]
        for host, words in starts:
            log = folder / f"{words[0]}.{host.name}.log"
            daemons.append(host.start(*words, log=log, env=environment))
        wait(idle, 60)
        yield environment
    except BaseException:
        for log in sorted(folder.parent.rglob("*.log")):
            print(f"--- {log}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")
        raise
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()  # on hosts of their own they end with those
            daemon.wait(20)
        shutil.rmtree(spool, ignore_errors=True)  # daemons on hosts of their own may still write


def ask(environment: dict[str, str], *words: str) -> str:
    """What a command of SLURM's says; nothing where it fails."""
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    return run.stdout.strip() if run.returncode == 0 else ""


def state(ask: Callable[..., str], job: str) -> str:
    """``PENDING``, ``RUNNING``, ``COMPLETED``, …; nothing where SLURM does not answer."""
    return ask("squeue", "-h", "-t", "all", "-o", "%T", "-j", job)


def started(ask: Callable[..., str], job: str, done: Callable[[], object]) -> Callable[[], object]:
    """``done``; while it is asked for, a job that has waited for ``PAUSE`` is started.

    SLURM by itself starts a job that was queued again after two minutes.
    """
    waits = time.monotonic()

    def check() -> object:
        nonlocal waits
        if state(ask, job) != "PENDING":
            waits = time.monotonic()
        elif time.monotonic() - waits > PAUSE:
            ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            waits = time.monotonic()
        return done()

    return check


def wait(done: Callable[[], object], seconds: float) -> None:
    """Wait until ``done()``.

    Raises:
        TimeoutError: it took longer.
    """
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"not done within {seconds} s")
        time.sleep(0.3)


def _ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for found in (one, two):
            found.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], two.getsockname()[1]]
