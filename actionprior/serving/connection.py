"""A client's connection, with bounds on what websockets itself does not bound."""

import asyncio
import time
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

_SPARE_FRAMES = 100
_SMALL = 1024  # bytes; how many larger frames there can be, their bytes bound


class TokenBucket:
    """Lets so many pass a second, and a burst of some at once."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._seen = time.monotonic()

    def take(self, cost: float = 1.0) -> float:
        """One passes; the seconds that it should wait first."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._seen) * self._per_second)
        self._tokens -= cost
        self._seen = now
        return max(0.0, -self._tokens / self._per_second)


class BoundedConnection(ServerConnection):
    """Cut off where too many are open, or where it sends more small frames than messages need.

    Pings, and the fragments of messages, cost time however small they are. A server makes a
    subclass of its own, see :meth:`within`.

    Attributes:
        most: connections that are open at once, those in their handshake too.
        frames_per_second: small ones that a client may send.
        count: connections that are open now.
        flooded: the client was cut off for its frames.
    """

    most: int
    frames_per_second: float
    count: int

    @classmethod
    def within(cls, most: int, frames_per_second: float) -> "type[BoundedConnection]":
        """The class of one server's connections."""
        bounds = {"most": most, "frames_per_second": frames_per_second, "count": 0}
        return type("Connection", (cls,), bounds)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # websockets'
        super().__init__(*args, **kwargs)
        self.flooded = False
        self._frames = TokenBucket(self.frames_per_second, _SPARE_FRAMES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connects; its handshake is yet to come."""
        super().connection_made(transport)
        type(self).count += 1
        if self.count > self.most:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        type(self).count -= 1
        super().connection_lost(exc)

    def process_event(self, event: Any) -> None:  # noqa: ANN401  # a frame, or the handshake
        """A frame comes in."""
        small = isinstance(event, Frame) and len(event.data) < _SMALL
        if small and event.opcode is not Opcode.CLOSE and self._frames.take() > 0:
            self.flooded = True
            self.transport.abort()
        else:
            super().process_event(event)
