"""Client connections with limits that websockets itself does not have."""

import asyncio
import time
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

_SPARE_FRAMES = 100  # small frames that a client may send at once
_SMALL = 1024  # bytes; the size limit of messages also limits the number of larger frames

HALF_OPEN_PER_ADDRESS = 32
HALF_OPEN = 64
"""Most handshakes under way, of one address and of all."""
QUICK_HANDSHAKE = 1.0
"""Time after which a handshake makes room for another one of its address [s]."""


class TokenBucket:
    """Limit a rate per second, but allow bursts."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._seen = time.monotonic()

    def take(self, cost: float = 1.0) -> float:
        """Take ``cost`` tokens, and return the seconds to wait first."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._seen) * self._per_second)
        self._tokens -= cost
        self._seen = now
        return max(0.0, -self._tokens / self._per_second)


class BoundedConnection(ServerConnection):
    """Connection that is aborted if too many are open, or if its client floods it with frames.

    Even small pings and fragments of messages cost time. Each server uses a subclass of its own,
    see :meth:`within`.

    Attributes:
        most: Maximum number of open connections, including those in their handshake.
        frames_per_second: Number of small frames that a client may send per second.
        count: Number of open connections.
        half_open: Connections in their handshake, oldest first.
        flooded: True if the connection was aborted because of too many frames.
    """

    most: int
    frames_per_second: float
    count: int
    half_open: "list[BoundedConnection]"

    @classmethod
    def within(cls, most: int, frames_per_second: float) -> "type[BoundedConnection]":
        """Return a subclass with limits and a count of its own, for one server."""
        bounds = {
            "most": most,
            "frames_per_second": frames_per_second,
            "count": 0,
            "half_open": list[BoundedConnection](),
        }
        return type("Connection", (cls,), bounds)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # websockets'
        super().__init__(*args, **kwargs)
        self.flooded = False
        self._frames = TokenBucket(self.frames_per_second, _SPARE_FRAMES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count a client that connects, before its handshake."""
        super().connection_made(transport)
        type(self).count += 1
        self._began = time.monotonic()
        self._address = (transport.get_extra_info("peername") or ("",))[0]
        self.half_open.append(self)
        by_address: dict[str, list[BoundedConnection]] = {}
        for waiting in self.half_open:
            by_address.setdefault(waiting._address, []).append(waiting)
        mine, largest = by_address[self._address], max(by_address.values(), key=len)
        if len(mine) > HALF_OPEN_PER_ADDRESS:
            self._make_room(mine)
        elif len(self.half_open) > HALF_OPEN:
            self._make_room(largest)
        if self.count > self.most:
            self.transport.abort()

    def _make_room(self, crowd: "list[BoundedConnection]") -> None:
        """Abort the oldest handshake of a crowded address, or this one if it is of that address.

        An address whose handshakes are all young gets no further one. Other addresses do.
        """
        old = self._began - crowd[0]._began > QUICK_HANDSHAKE
        (crowd[0] if old or self not in crowd else self).transport.abort()

    def handshake_done(self) -> None:
        """Count the handshake as finished."""
        if self in self.half_open:
            self.half_open.remove(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a client that left."""
        self.handshake_done()
        type(self).count -= 1
        super().connection_lost(exc)

    def process_event(self, event: Any) -> None:  # noqa: ANN401  # a frame, or the handshake
        """Process an incoming frame, or abort a client that sends too many."""
        small = isinstance(event, Frame) and len(event.data) < _SMALL
        if small and event.opcode is not Opcode.CLOSE and self._frames.take() > 0:
            self.flooded = True
            self.transport.abort()
        else:
            super().process_event(event)
