"""Batch the waiting requests of several sessions in one thread that owns the policy."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from actionprior.chunk_planner import Memory, Planner
from actionprior.embodiment import FloatArray
from actionprior.embodiment.policy_input import CheckedObservation
from actionprior.errors import PolicyError

MOST_FAILURES = 3
"""Failures in a row after which the policy counts as unable to answer."""


class Answer(NamedTuple):
    """A chunk, with the time and size of its batch.

    Attributes:
        actions: Actions (H, n_a), in the robot's order and units.
        seconds: Time that the policy took for the batch.
        batch: Number of requests in the batch.
    """

    actions: FloatArray
    seconds: float
    batch: int


class _PendingRequest(NamedTuple):
    memory: Memory
    sensed: CheckedObservation
    committed: FloatArray | None
    answer: Future[Answer]
    since: float  # time of the request [s], by the monotonic clock

    def fits(self, other: "_PendingRequest") -> bool:
        """Check whether both may share a batch without changing each other's answers.

        The policy handles committed steps in one way for the whole batch, so all of its requests
        must have the same number of them.
        """
        return self._shape() == other._shape()

    def _shape(self) -> tuple[tuple[int, ...] | None, int]:
        images, committed = self.sensed.images, self.committed
        return (
            None if images is None else images.shape,
            0 if committed is None else len(committed),
        )


class Batcher:
    """Answer the requests of several sessions; each session has one request at a time.

    Args:
        planner: Planner of the policy. Only the batcher's thread uses it.
        max_batch: Maximum number of requests in a batch.
        max_bytes: Maximum size of the images in a batch of several requests.
        on_batch: Function that is called with the size of each batch, in the thread.
    """

    def __init__(
        self,
        planner: Planner,
        max_batch: int,
        max_bytes: int,
        on_batch: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._planner = planner
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._on_batch = on_batch
        self._waiting: list[_PendingRequest] = []
        self._changed = threading.Condition()
        self._closed = False
        self._failures = 0  # answers in a row that failed for another reason than the observation
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def submit(
        self, memory: Memory, sensed: CheckedObservation, committed: FloatArray | None = None
    ) -> Future[Answer]:
        """Request a chunk; the future raises what the policy raises."""
        answer: Future[Answer] = Future()
        with self._changed:
            if not self._thread.is_alive():
                raise RuntimeError("the planning thread has ended")
            request = _PendingRequest(memory, sensed, committed, answer, time.monotonic())
            self._waiting.append(request)
            self._changed.notify()
        return answer

    def close(self, seconds: float | None = None) -> None:
        """Answer the waiting requests, then end the thread, and wait for it at most ``seconds``."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def trouble(self, longest: float) -> str:
        """Return why the policy cannot answer, or an empty string.

        Args:
            longest: Time that an answer may take, from the request on [s].
        """
        since = self._busy_since
        if not self._thread.is_alive():
            return "the planning thread has ended"
        if since is not None and time.monotonic() - since >= longest:
            return f"the policy has not answered for {longest:g} s"
        if self._failures >= MOST_FAILURES:
            return f"the policy failed on its last {self._failures} requests"
        return ""

    def _work(self) -> None:
        try:
            while (batch := self._next()) is not None:
                if batch:
                    # A session gives up this long after its request, so health counts from there.
                    self._busy_since = min(request.since for request in batch)
                    self._on_batch(len(batch))
                    self._answer(batch)
                    self._busy_since = None
        finally:  # also if this code itself fails: no client may wait for ever
            with self._changed:
                waiting, self._waiting = self._waiting, []
            for request in waiting:
                if request.answer.set_running_or_notify_cancel():
                    request.answer.set_exception(RuntimeError("the planning thread has ended"))

    def _next(self) -> list[_PendingRequest] | None:
        """Take the oldest request and others that fit it; None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            first = self._waiting[0]
            most = self._max_batch
            if first.sensed.images is not None:
                most = max(1, min(most, self._max_bytes // first.sensed.images.nbytes))
            batch: list[_PendingRequest] = []
            rest: list[_PendingRequest] = []
            for waiting in self._waiting:
                (batch if len(batch) < most and waiting.fits(first) else rest).append(waiting)
            self._waiting = rest
        return [w for w in batch if w.answer.set_running_or_notify_cancel()]

    def _answer(self, batch: list[_PendingRequest]) -> None:
        before = [waiting.memory.plans for waiting in batch]
        start = time.perf_counter()
        try:
            chunks = self._chunks(batch)
        except Exception as error:
            if len(batch) == 1:
                self._failures += not isinstance(error, PolicyError)
                batch[0].answer.set_exception(error)
                return
            # One bad request must not fail the batch.
            for waiting, plans in zip(batch, before, strict=True):
                waiting.memory.plans = plans
                self._answer([waiting])
            return
        seconds = time.perf_counter() - start
        self._failures = 0
        for waiting, chunk in zip(batch, chunks, strict=True):
            if np.isfinite(chunk).all():
                waiting.answer.set_result(Answer(chunk, seconds, len(batch)))
            else:
                waiting.answer.set_exception(PolicyError("the policy's chunk is not finite"))

    def _chunks(self, batch: list[_PendingRequest]) -> FloatArray:
        memories = [waiting.memory for waiting in batch]
        states = np.stack([waiting.sensed.state for waiting in batch])
        images = [w.sensed.images for w in batch if w.sensed.images is not None]
        committed = [w.committed for w in batch if w.committed is not None]
        request = self._planner.request(
            memories, states, np.stack(images) if images else None, committed or None
        )
        return self._planner.predict(request)
