"""Turn faults of disks, loader processes and other ranks into one-sentence user errors."""

import re
import traceback
from pathlib import Path

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException

from actionprior.errors import UserError, disk_error, shorten

_LIGHTNING = Path(lightning.__file__).parent

_DATALOADER = ("torch", "utils", "data", "dataloader.py")
_LOADER = (
    "a process that loads data has ended ({}); if it was killed for memory, lower "
    "--data.num_workers, or give shared memory (/dev/shm) more room"
)
_RULES = {
    r"DataLoader worker \(pid": _LOADER,
    r"(unable to|Failed to|Unexpected bus error).*(shared memory|shm|</torch_)": (
        "there is no more shared memory (/dev/shm) for loaded batches ({}); give it more room or "
        "lower --data.num_workers"
    ),
    r"(connectFullMesh failed(?!.* by peer)|no socket interface found|client socket has )": (
        "the hosts of this run do not reach each other ({}); name the network's interface in "
        "GLOO_SOCKET_IFNAME (CPUs) or NCCL_SOCKET_IFNAME (GPUs), or torchrun's --local-addr"
    ),
    r"(Connection (closed|reset) by peer|Connection was likely closed|Connection timed out|"
    r"No route to host|Broken pipe|remote process exited|Timed out waiting|wait timeout after|"
    r"Timed out after .* waiting for clients)": (
        "another process of this run has ended or hangs ({}); its own output says why; resume "
        "with --ckpt_path last"
    ),
}
"""Sentence for each pattern of torch's messages; torch raises all of them as ``RuntimeError``."""


def as_user_error(error: BaseException) -> UserError | None:
    """Convert a fault of disk, loader or network to a user error.

    Args:
        error: Error that ended the run.

    Returns:
        The user error, or None for any other fault and for a fault that already is a user error.
    """
    chain: list[BaseException] = []
    reason: BaseException | None = error
    while reason is not None and reason not in chain:
        chain.append(reason)
        reason = reason.__cause__ or reason.__context__
    if any(isinstance(link, UserError) for link in chain):
        return None
    for link in chain:
        if found := disk_error(link, "write elsewhere with --trainer.default_root_dir"):
            return found
        if isinstance(link, ConnectionError | EOFError) and _in_loader(link):
            return UserError(_LOADER.format(str(link) or type(link).__name__))
        if isinstance(link, MisconfigurationException) or _refused_by_lightning(link):
            return UserError(shorten(link, 500))
        for pattern, sentence in _RULES.items():
            if isinstance(link, RuntimeError) and re.search(pattern, str(link)):
                return UserError(sentence.format(shorten(link)))
    return None


def _refused_by_lightning(error: BaseException) -> bool:
    """Check that Lightning's own code refused a value, such as a seed."""
    if type(error) is not ValueError:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _LIGHTNING in Path(frames[-1].filename).parents


def _in_loader(error: BaseException) -> bool:
    """Check that the error comes from waiting for a batch, so that a loader process has ended."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(f.filename).parts[-4:] == _DATALOADER for f in frames)
