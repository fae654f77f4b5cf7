"""Two hosts for a test, each with its own processes, name, network and ``/etc/hosts``.

The hosts are Linux namespaces, joined by a virtual Ethernet pair. They share the disk, like the
nodes of a cluster with a shared folder. They end with the process that made them, even if that is
killed. Debian: ``apt install iproute2 util-linux``. Needs root.
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
if not MISSING:  # root in a container may lack the right
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
    """Namespace that looks like a separate machine to its processes."""

    name: str
    address: str
    pid: int  # of its first process; all others end with it

    def words(self, *words: str) -> list[str]:
        """Return the command that runs ``words`` on the host, in this folder and environment."""
        return ["nsenter", f"--target={self.pid}", "--all", f"--wd={Path.cwd()}", "--", *words]

    def start(
        self, *words: str, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``words`` on the host and append its output to the file ``log``."""
        with log.open("ab") as file:
            return subprocess.Popen(self.words(*words), env=env, stdout=file, stderr=file)

    def set_link(self, state: str) -> None:
        """Set the link ``down``, so that packets are lost without an error, or ``up`` again."""
        subprocess.run(self.words("ip", "link", "set", INTERFACE, state), check=True)

    def kill(self) -> None:
        """Send SIGKILL to all of the host's processes except the first."""
        subprocess.run(self.words("sh", "-c", "kill -KILL -1"), check=False)


@contextmanager
def two_hosts(folder: Path, own_name_is: str = "") -> Iterator[tuple[Host, Host]]:
    """Start two hosts that know each other's names, ``host0`` and ``host1``.

    Args:
        folder: Folder for the hosts' ``/etc/hosts`` files.
        own_name_is: Address that a host resolves its own name to; Debian uses 127.0.1.1. Empty
            means its address in the network.
    """
    holders, hosts = [], []
    try:
        for name, address in ADDRESSES.items():
            known = ADDRESSES | ({name: own_name_is} if own_name_is else {})
            file = folder / f"hosts_of_{name}"
            lines = {"localhost": "127.0.0.1"} | known
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
        enter = [
            "nsenter",
            f"--target={first.pid}",
            "--net",
        ]  # the pids are those that this process sees
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
