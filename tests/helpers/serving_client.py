"""A server in this process, and a client that shares only the message format with it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import msgpack
import numpy as np
from websockets.sync.client import connect

from actionprior.policy import Policy
from actionprior.serving import PolicyServer


def encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def decode(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])
    return found


class Client:
    """Behaves as ``openpi_client.websocket_client_policy.WebsocketClientPolicy``."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = connect(f"ws://{host}:{port}", compression=None, max_size=None)
        self.metadata = msgpack.unpackb(self.socket.recv(), object_hook=decode)

    def get_server_metadata(self) -> dict[str, Any]:
        return self.metadata

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        return self.ask(msgpack.packb(observation, default=encode))

    def ask(self, message: bytes | str) -> dict[str, Any]:
        self.socket.send(message)
        answer = self.socket.recv(timeout=60)
        if isinstance(answer, str):
            raise RuntimeError(answer)
        found: dict[str, Any] = msgpack.unpackb(answer, object_hook=decode)
        return found

    def actions(self, observation: dict[str, Any]) -> np.ndarray:
        return self.infer(observation)["actions"]


@contextmanager
def serving(policy: Policy, **bounds: Any) -> Iterator[PolicyServer]:
    """Run a server on a free port, with its event loop in a thread."""
    server = PolicyServer(policy, **bounds)
    started, ends = threading.Event(), threading.Event()

    async def live() -> None:
        async with server:
            started.set()
            await asyncio.to_thread(ends.wait)

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    try:
        assert started.wait(30)
        yield server
    finally:
        ends.set()
        thread.join()


def get(server: PolicyServer, path: str) -> tuple[int, str]:
    """Return status and body of an HTTP answer."""
    try:
        with urlopen(f"http://{server.host}:{server.port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def metric(server: PolicyServer, name: str) -> float:
    """Read the value of a series from the metrics."""
    lines = [line.rpartition(" ") for line in get(server, "/metrics")[1].splitlines()]
    [value] = [float(value) for series, _, value in lines if series == name]
    return value
