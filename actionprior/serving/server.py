"""Serve a policy over a websocket to openpi's clients.

A client that connects gets a description of the expected observations. The server answers each of
its messages with a chunk of actions, or with a text message that says what is wrong. Source of the
protocol: ``openpi_client.websocket_client_policy`` 0.1.2.
"""

import asyncio
import logging
import math
import time
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from actionprior import __version__
from actionprior.chunk_planner import Memory
from actionprior.embodiment.guard import Guard
from actionprior.errors import PolicyError, UserError
from actionprior.policy import Policy
from actionprior.serving.access import asked_directly, knows_token
from actionprior.serving.batching import Batcher
from actionprior.serving.connection import HALF_OPEN, BoundedConnection, TokenBucket
from actionprior.serving.metrics import CONTENT_TYPE, Metrics
from actionprior.serving.request import Request, check_chunk, read_request, remember
from actionprior.serving.wire import WireError, pack, unpack

logger = logging.getLogger(__name__)

_SPARE_CONNECTIONS = HALF_OPEN  # for handshakes and health checks, besides the sessions
_INTERNAL = "the policy failed on this observation; the server's log says why"


class PolicyServer:
    """Serve a policy to several clients, each with an episode of its own.

    ``async with PolicyServer(policy) as server`` listens until the block ends. Pending requests
    are then answered, and the sessions are closed.

    Args:
        policy: Policy to serve. Nothing but the server may use it. Each session is guarded as its
            arguments ``guard`` and ``guard_margin`` say.
        host: Address to listen on, by default only for this machine.
        port: Port to listen on; 0 chooses a free one, see the attribute ``port``.
        max_sessions: Maximum number of clients; further ones get HTTP status 503.
        max_batch: Maximum number of requests in one forward pass.
        max_message_bytes: Size limit of a message; a larger one ends its session.
        max_rate: Messages per second and client, where each MiB counts as one more message; faster
            clients wait.
        idle_timeout: Time without a message after which a session ends [s].
        message_timeout: Time limit for receiving a message and for sending an answer [s].
        grace: Time that clients get when the server stops [s].
        answer_timeout: Time limit for an answer of the policy [s]; a session that waits longer is
            closed, and ``GET /healthz`` reports it.
        token: Shared secret that clients send as openpi's API key, also for ``GET /metrics``; empty
            admits everybody.

    Attributes:
        port: Port that the server listens on.
        metrics: Metrics that ``GET /metrics`` returns.

    Raises:
        UserError: A limit is not above 0, or the port is not one.
    """

    def __init__(
        self,
        policy: Policy,
        host: str = "127.0.0.1",
        port: int = 0,
        max_sessions: int = 32,
        max_batch: int = 16,
        max_message_bytes: int = 2**24,
        max_rate: float = 100.0,
        idle_timeout: float = 600.0,
        message_timeout: float = 10.0,
        grace: float = 10.0,
        answer_timeout: float = 60.0,
        token: str = "",
    ) -> None:
        bounds = {
            "max_sessions": max_sessions,
            "max_batch": max_batch,
            "max_message_bytes": max_message_bytes,
            "max_rate": max_rate,
            "idle_timeout": idle_timeout,
            "message_timeout": message_timeout,
            "answer_timeout": answer_timeout,
        }
        for name, value in bounds.items():
            if not 0 < value < math.inf:
                raise UserError(f"{name} is {value}, expected a number above 0")
        if not 0 <= port < 2**16:
            raise UserError(
                f"port is {port}, expected 1 to {2**16 - 1}, or 0 to choose a free one (--port)"
            )
        self.host, self.port = host, port
        self.metrics = Metrics()
        self._policy = policy
        self._max_sessions = max_sessions
        self._max_batch = max_batch
        self._max_bytes = max_message_bytes
        self._max_rate = max_rate
        self._idle_timeout = idle_timeout
        self._message_timeout = message_timeout
        self._grace = grace
        self._answer_timeout = answer_timeout
        self._token = token.encode()
        self._idle: set[ServerConnection] = set()
        self._sessions = 0
        self._stopping = False

    # ---- start and stop -------------------------------------------------------------------

    async def __aenter__(self) -> "PolicyServer":
        """Start to listen.

        Raises:
            UserError: The port is in use, or the host is not an address of this machine.
        """
        most = self._max_sessions + _SPARE_CONNECTIONS
        try:
            self._server: Server = await serve(
                self._serve,
                self.host,
                self.port,
                origins=[None],  # web pages in a browser must not command a robot
                compression=None,
                process_request=self._respond,
                server_header=None,
                open_timeout=self._message_timeout,
                # A client that sends a frame without end cannot answer the ping.
                ping_interval=self._message_timeout,
                ping_timeout=self._message_timeout,
                close_timeout=self._message_timeout,
                max_size=self._max_bytes,
                max_queue=1,
                create_connection=BoundedConnection.within(most, 2 * self._max_rate),
            )
        except OSError as error:
            raise UserError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._batcher = Batcher(
            self._policy.planner, self._max_batch, self._max_bytes, self.metrics.batches.observe
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        """Answer pending requests, close all sessions, and stop."""
        self._stopping = True
        self._server.close(close_connections=False)
        closing = [asyncio.create_task(_close_session(connection)) for connection in self._idle]
        try:
            async with asyncio.timeout(self._grace):
                await asyncio.gather(*closing)
                await self._server.wait_closed()
        except TimeoutError:
            for connection in self._server.connections:
                connection.transport.abort()
        await asyncio.to_thread(self._batcher.close, self._grace)

    @property
    def url(self) -> str:
        """Address for clients."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    # ---- HTTP -----------------------------------------------------------------------------

    def _respond(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        path = request.path.partition("?")[0]
        if path in ("/healthz", "/metrics") and not asked_directly(request.headers, self.host):
            return connection.respond(
                HTTPStatus.FORBIDDEN, "web pages and other hosts' names are refused\n"
            )
        if path == "/healthz":
            if trouble := self._batcher.trouble(self._answer_timeout):
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{trouble}\n")
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self._token and not knows_token(request.headers, self._token):
            self.metrics.errors.labels("token").inc()
            return connection.respond(
                HTTPStatus.UNAUTHORIZED, "the API key is missing or not the server's\n"
            )
        if path == "/metrics":
            response = connection.respond(HTTPStatus.OK, self.metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        if self._sessions >= self._max_sessions:
            self.metrics.errors.labels("full").inc()
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, f"all {self._max_sessions} sessions are taken\n"
            )
        return None

    # ---- sessions -------------------------------------------------------------------------

    async def _serve(self, connection: ServerConnection) -> None:
        """Serve one client until it leaves."""
        if isinstance(connection, BoundedConnection):
            connection.handshake_done()
        if self._sessions >= self._max_sessions:  # two clients passed `_respond` at once
            self.metrics.errors.labels("full").inc()
            await connection.close(CloseCode.TRY_AGAIN_LATER, "all sessions are taken")
            return
        self._sessions += 1
        self.metrics.sessions.set(self._sessions)
        try:
            await self._session(connection)
        except ConnectionClosed:
            self._count_limit(connection)
        finally:
            self._sessions -= 1
            self.metrics.sessions.set(self._sessions)

    async def _session(self, connection: ServerConnection) -> None:
        memory = Memory(0, self._policy.network.history_length)
        guard = self._policy.guard.same_limits(_log_once_per_session)
        pace = TokenBucket(self._max_rate, burst=max(1.0, self._max_rate / 10))
        took: float | None = None
        if not await self._send(connection, pack(self.metadata)):
            return
        while not self._stopping:
            message = await self._receive(connection)
            if message is None:
                return
            await asyncio.sleep(pace.take(1 + len(message) / 2**20))
            start = time.perf_counter()
            memory, answer = await self._answer(memory, guard, message, took)
            del message  # free the images while the session waits
            if answer is None:
                self.metrics.errors.labels("stuck").inc()
                await connection.close(CloseCode.INTERNAL_ERROR, "the policy did not answer")
                return
            if not await self._send(connection, answer):
                return
            took = time.perf_counter() - start
            self.metrics.seconds.observe(took)
        await _close_session(connection)

    async def _answer(
        self, memory: Memory, guard: Guard, message: str | bytes, took: float | None
    ) -> tuple[Memory, str | bytes | None]:
        """Return the new memory and the message to send; None if the policy does not answer."""
        start, before = time.perf_counter(), replace(memory)
        self.metrics.requests.inc()
        try:
            request = self._read(message)
            memory = remember(memory, request)
            return memory, pack(await self._plan(memory, guard, request, start, took))
        except (WireError, PolicyError) as error:
            kind = "malformed" if isinstance(error, WireError) else "observation"
            reason = str(error)
        except TimeoutError:
            logger.error("the policy did not answer within %g s", self._answer_timeout)
            return before, None
        except Exception:
            logger.exception("an answer failed")
            kind, reason = "internal", _INTERNAL
        self.metrics.errors.labels(kind).inc()
        return before, reason  # a refused message must not change the memory

    def _read(self, message: str | bytes) -> Request:
        if isinstance(message, str):
            raise WireError("the message is text, expected binary msgpack")
        with np.errstate(over="ignore"):  # numbers too large for float32 are refused as not finite
            network = self._policy.network
            return read_request(
                unpack(message), self._policy.robot, network.chunk_length, network.image_shape
            )

    async def _plan(
        self, memory: Memory, guard: Guard, request: Request, start: float, took: float | None
    ) -> dict[str, Any]:
        """Compute the answer, with timings [ms] under the names of openpi's server."""
        last_action = memory.last_action
        submitted = self._batcher.submit(memory, request.sensed, request.committed)
        async with asyncio.timeout(self._answer_timeout):
            answer = await asyncio.wrap_future(submitted)
        before = dict(guard.counts)
        actions = check_chunk(answer.actions, guard, request, last_action)
        found = {kind: count - before[kind] for kind, count in guard.counts.items()}
        for kind, count in found.items():
            self.metrics.guard.labels(kind).inc(count)
        timing: dict[str, float] = {
            "infer_ms": 1000 * (time.perf_counter() - start),
            "batch_size": answer.batch,
        }
        if took is not None:
            timing["prev_total_ms"] = 1000 * took
        return {
            "actions": actions,
            "server_timing": timing,
            "policy_timing": {"infer_ms": 1000 * answer.seconds},
            **({"guard": found} if guard.compares else {}),
        }

    @property
    def metadata(self) -> dict[str, Any]:
        """Description of observations and actions that clients get when they connect."""
        robot, network = self._policy.robot, self._policy.network
        return {
            "server": f"actionprior {__version__}",
            "robot": robot.name,
            "control_hz": robot.control_hz,
            "state_key": robot.state_key,
            "state_features": robot.state_features,
            "cameras": robot.cameras,
            "action_features": robot.action_features,
            "chunk_length": network.chunk_length,
            "history_length": network.history_length,
            "execute_steps": self._policy.execute_steps,
            "delay_steps": self._policy.delay_steps,
            "max_message_bytes": self._max_bytes,
            "guard": self._policy.guard.mode if self._policy.guard.compares else "off",
        }

    # ---- one message ----------------------------------------------------------------------

    async def _receive(self, connection: ServerConnection) -> str | bytes | None:
        """Receive a message; None if none came in time and the session was closed."""
        parts: list[Any] = []
        self._idle.add(connection)
        try:
            async with asyncio.timeout(self._idle_timeout) as limit:
                async for part in connection.recv_streaming():
                    if not parts:
                        within = asyncio.get_running_loop().time() + self._message_timeout
                        limit.reschedule(within)
                    parts.append(part)
        except TimeoutError:
            self.metrics.errors.labels("slow" if parts else "idle").inc()
            seconds = self._message_timeout if parts else self._idle_timeout
            what = "the message was incomplete" if parts else "no message arrived"
            await connection.close(CloseCode.POLICY_VIOLATION, f"{what} within {seconds:g} s")
            return None
        finally:
            self._idle.discard(connection)
        message: str | bytes = parts[0][:0].join(parts)
        return message

    async def _send(self, connection: ServerConnection, answer: bytes | str) -> bool:
        """Send an answer. Return False, and abort, if the client does not take it in time."""
        try:
            async with asyncio.timeout(self._message_timeout):
                await connection.send(answer)
        except TimeoutError:
            self.metrics.errors.labels("slow").inc()
            connection.transport.abort()
            return False
        return True

    def _count_limit(self, connection: ServerConnection) -> None:
        """Count a session that was ended by a limit rather than by its client."""
        sent = connection.protocol.close_sent
        if isinstance(connection, BoundedConnection) and connection.flooded:
            self.metrics.errors.labels("flood").inc()
        elif sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG:
            self.metrics.errors.labels("oversize").inc()
        elif sent is not None and sent.code == CloseCode.INTERNAL_ERROR:  # no answer to a ping
            self.metrics.errors.labels("slow").inc()


def _log_once_per_session(kind: str, text: str) -> None:
    logger.warning("%s (said once per session; /metrics counts kind %r)", text, kind)


async def _close_session(connection: ServerConnection) -> None:
    await connection.close(CloseCode.GOING_AWAY, "the server stops")
