"""A SLURM cluster for a test, of one node or of given hosts, with daemons in the test's folder.

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
"""Time that a requeued job waits before it is started [s].

SLURM gives up a job that starts in the same second in which its last try was killed.
"""
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
    """This machine, without a namespace."""

    def words(self, *words: str) -> list[str]:
        return list(words)


@contextmanager
def cluster(folder: Path, hosts: Sequence[Host] = ()) -> Iterator[dict[str, str]]:
    """Start a cluster; yield the environment in which ``sbatch`` and the like talk to it.

    Args:
        folder: New folder for the daemons' state and logs.
        hosts: Nodes of the cluster; the first runs the controller. Empty means this machine only.
    """
    hosts = hosts or [Here(socket.gethostname().partition(".")[0], "127.0.0.1", os.getpid())]
    (folder / "state").mkdir(parents=True)
    # Outside the test's folder: the path of a job's socket below it has at most 107 bytes.
    spool = Path(tempfile.mkdtemp(prefix="slurm"))
    for host in hosts:
        (spool / host.name).mkdir()
    node = "NodeName={} NodeAddr={} CPUs={} State=UNKNOWN"
    nodes = [node.format(host.name, host.address, os.cpu_count()) for host in hosts]
    first = hosts[0]
    configuration = CONFIGURATION.format(
        control=f"{first.name}({first.address})",
        nodes="\n".join(nodes),
        folder=folder,
        spool=spool,
        ports=_ports(),
    )
    (folder / "slurm.conf").write_text(configuration)
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
            daemon.terminate()  # daemons on other hosts end with their hosts
            daemon.wait(20)
        shutil.rmtree(spool, ignore_errors=True)  # daemons on other hosts may still write


def ask(environment: dict[str, str], *words: str) -> str:
    """Return the output of a SLURM command, or an empty string if it fails."""
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    return run.stdout.strip() if run.returncode == 0 else ""


def state(ask: Callable[..., str], job: str) -> str:
    """Return ``PENDING``, ``RUNNING``, ``COMPLETED``, …, or nothing if SLURM does not answer."""
    return ask("squeue", "-h", "-t", "all", "-o", "%T", "-j", job)


def started(ask: Callable[..., str], job: str, done: Callable[[], object]) -> Callable[[], object]:
    """Wrap ``done`` so that each call also starts the job once it has waited for ``PAUSE``.

    Without this, SLURM starts a requeued job only after two minutes.
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
        TimeoutError: If it takes longer than ``seconds``.
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
