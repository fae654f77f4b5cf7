"""Metrics of the server for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from actionprior.embodiment.guard import KINDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ERRORS = (
    "malformed",
    "observation",
    "internal",
    "stuck",
    "oversize",
    "slow",
    "idle",
    "flood",
    "full",
    "token",
)


class Metrics:
    """Counters of one server.

    Attributes:
        requests: Number of messages, answered or refused.
        errors: Number of errors by kind: ``malformed`` messages, bad ``observation``, ``internal``
            failures, a ``stuck`` policy, ``oversize`` messages, ``slow`` and ``idle`` clients, a
            ``flood`` of frames, and clients that were refused because the server was ``full`` or
            their ``token`` wrong.
        guard: Number of states and actions that training never saw, by kind, see
            ``actionprior.embodiment.guard.Guard``.
        sessions: Number of open sessions.
        batches: Sizes of the policy's batches.
        seconds: Time from a message to its answer [s].
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "actionprior_requests", "Messages, answered or refused", registry=registry
        )
        self.errors = Counter("actionprior_errors", "Refusals", ["kind"], registry=registry)
        for kind in ERRORS:  # a series that starts at 0 shows its first increase
            self.errors.labels(kind)
        self.guard = Counter(
            "actionprior_guard", "What training never saw", ["kind"], registry=registry
        )
        for kind in KINDS:
            self.guard.labels(kind)
        self.sessions = Gauge("actionprior_sessions", "Open sessions", registry=registry)
        self.batches = Histogram(
            "actionprior_batch_size",
            "Requests that the policy answers at once",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.seconds = Histogram(
            "actionprior_request_seconds",
            "From a message to its answer",
            registry=registry,
            buckets=_SECONDS,
        )

    def text(self) -> str:
        """Return the metrics in Prometheus' exposition format."""
        return generate_latest(self._registry).decode()
