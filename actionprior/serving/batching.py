"""One thread owns the policy and answers, in one batch, what waits when it becomes free."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from actionprior.chunk_planner import Memory, Planner, PolicyError
from actionprior.embodiment import FloatArray
from actionprior.policy import CheckedObservation


class Answer(NamedTuple):
    """A chunk, and what it took.

    Attributes:
        actions: (H, n_a), in the robot's order and units.
        seconds: that the policy took for the whole batch.
        batch: how many were answered in it.
    """

    actions: FloatArray
    seconds: float
    batch: int


class _Waiting(NamedTuple):
    memory: Memory
    sensed: CheckedObservation
    committed: FloatArray | None
    answer: Future[Answer]

    def fits(self, other: "_Waiting") -> bool:
        """Whether both may share a batch, in which neither's answer depends on the other.

        Steps under way are held in one of two ways, chosen for a batch by how many they are.
        """
        mine, theirs = self.sensed.images, other.sensed.images
        return (None if mine is None else mine.shape, _steps(self)) == (
            None if theirs is None else theirs.shape,
            _steps(other),
        )


class Batcher:
    """Answers requests of several sessions; each session has one at a time.

    Args:
        planner: of the policy; used by the thread alone.
        max_batch: most requests answered at once.
        max_bytes: most bytes of images in a batch of several.
        on_batch: told how many a batch holds, in the thread.
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
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def submit(
        self, memory: Memory, sensed: CheckedObservation, committed: FloatArray | None = None
    ) -> Future[Answer]:
        """Ask for a chunk; the future raises whatever the policy does."""
        answer: Future[Answer] = Future()
        with self._changed:
            self._waiting.append(_Waiting(memory, sensed, committed, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._on_batch(len(batch))
                self._answer(batch)

    def _next(self) -> list[_Waiting] | None:
        """Who waited longest, and others that fit; None once all is answered and closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            first = self._waiting[0]
            most = self._max_batch
            if first.sensed.images is not None:
                most = max(1, min(most, self._max_bytes // first.sensed.images.nbytes))
            batch: list[_Waiting] = []
            rest: list[_Waiting] = []
            for waiting in self._waiting:
                (batch if len(batch) < most and waiting.fits(first) else rest).append(waiting)
            self._waiting = rest
        return [w for w in batch if w.answer.set_running_or_notify_cancel()]

    def _answer(self, batch: list[_Waiting]) -> None:
        before = [waiting.memory.plans for waiting in batch]
        start = time.perf_counter()
        try:
            chunks = self._chunks(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for waiting, plans in zip(batch, before, strict=True):  # it is one's fault, not all's
                waiting.memory.plans = plans
                self._answer([waiting])
            return
        seconds = time.perf_counter() - start
        for waiting, chunk in zip(batch, chunks, strict=True):
            if np.isfinite(chunk).all():
                waiting.answer.set_result(Answer(chunk, seconds, len(batch)))
            else:
                waiting.answer.set_exception(PolicyError("the policy's chunk is not finite"))

    def _chunks(self, batch: list[_Waiting]) -> FloatArray:
        memories = [waiting.memory for waiting in batch]
        states = np.stack([waiting.sensed.state for waiting in batch])
        images = [w.sensed.images for w in batch if w.sensed.images is not None]
        committed = [w.committed for w in batch if w.committed is not None]
        question = self._planner.request(
            memories, states, np.stack(images) if images else None, committed or None
        )
        return self._planner.predict(question)


def _steps(waiting: _Waiting) -> int:
    return 0 if waiting.committed is None else len(waiting.committed)
