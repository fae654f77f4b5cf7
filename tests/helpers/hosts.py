"""Two hosts for a test: each with processes, a name, a network and an ``/etc/hosts`` of its own.

Linux namespaces, joined by a cable of a virtual Ethernet pair; the disk is the same, as a
cluster's shared folder is. They end with the process that made them, even where that is killed.
Debian: ``apt install iproute2 util-linux``. Needs root.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("ip", "unshare", "nsenter", "setpriv")
MISSING = [name for name in TOOLS if not shutil.which(name)]
if os.geteuid() != 0:
    MISSING.append("root")
if not MISSING:  # a container's root may not make them
    tried = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        MISSING.append("the right to make namespaces")

INTERFACE = "eth0"
ADDRESSES = {"host0": "10.77.0.1", "host1": "10.77.0.2"}
HOST = """
hostname "$1"
ip link set lo up
mount --bind "$2" /etc/hosts
mount -t tmpfs shm /dev/shm
echo 5 > /proc/sys/net/ipv4/tcp_retries2  # a silent connection is given up in 13 s, not 15 min
echo up
exec sleep infinity
"""


@dataclass(frozen=True)
class Host:
    """A machine of its own, as far as its processes can tell."""

    name: str
    address: str
    pid: int  # of its first process, whose end is the end of all of them

    def words(self, *words: str) -> list[str]:
        """The command that runs ``words`` there, in this folder and with this environment."""
        return ["nsenter", f"--target={self.pid}", "--all", f"--wd={Path.cwd()}", "--", *words]

    def start(
        self, *words: str, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``words`` there; what they say is added to the file ``log``."""
        with log.open("ab") as file:
            return subprocess.Popen(self.words(*words), env=env, stdout=file, stderr=file)

    def set_link(self, state: str) -> None:
        """``down``: what is sent is lost, and nobody is told of it; ``up``: as before."""
        subprocess.run(self.words("ip", "link", "set", INTERFACE, state), check=True)

    def kill(self) -> None:
        """SIGKILL to all of its processes but the first."""
        subprocess.run(self.words("sh", "-c", "kill -KILL -1"), check=False)


@contextmanager
def two_hosts(folder: Path, own_name_is: str = "") -> Iterator[tuple[Host, Host]]:
    """Two hosts that know each other's names; ``host0`` is 10.77.0.1, ``host1`` 10.77.0.2.

    Args:
        folder: for their ``/etc/hosts``.
        own_name_is: the address that a host takes its own name for; Debian says 127.0.1.1.
    """
    holders, hosts = [], []
    try:
        for name, address in ADDRESSES.items():
            told = ADDRESSES | ({name: own_name_is} if own_name_is else {})
            file = folder / f"hosts_of_{name}"
            lines = {"localhost": "127.0.0.1"} | told
            file.write_text("".join(f"{where} {who}\n" for who, where in lines.items()))
            words = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--uts", "--mount"]
            words += ["--pid", "--fork", "--kill-child", "--mount-proc"]
            words += ["sh", "-ec", HOST, "sh", name, str(file)]
            holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            holders.append(holder)
            if not holder.stdout or holder.stdout.readline() != "up\n":
                raise RuntimeError(f"{name} does not start; its output says why")
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            hosts.append(Host(name, address, int(children[0])))
        first, second = hosts
        pair = f"link add {INTERFACE} type veth peer name {INTERFACE} netns {second.pid}"
        enter = ["nsenter", f"--target={first.pid}", "--net"]  # the pids are this process's own
        subprocess.run([*enter, "ip", *pair.split()], check=True)
        for host in hosts:
            words = ["ip", "address", "add", f"{host.address}/24", "dev", INTERFACE]
            subprocess.run(host.words(*words), check=True)
            host.set_link("up")
        yield first, second
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
