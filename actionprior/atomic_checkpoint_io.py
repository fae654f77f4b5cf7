"""The path that recipes of version 0.1.0 name; see :mod:`actionprior.checkpoints.atomic`."""

from actionprior.checkpoints.atomic import AsyncAtomicCheckpointIO, AtomicCheckpointIO

__all__ = ["AsyncAtomicCheckpointIO", "AtomicCheckpointIO"]
