"""Serve a policy over websockets: wire format, sessions, batching and server."""

from actionprior.serving.server import PolicyServer

__all__ = ["PolicyServer"]
