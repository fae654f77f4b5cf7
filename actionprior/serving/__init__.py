"""A policy behind a socket: the wire format, sessions, batches of them, and the server."""

from actionprior.serving.server import PolicyServer

__all__ = ["PolicyServer"]
