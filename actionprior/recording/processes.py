"""Try an expert's next seeds ahead, in several processes."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from actionprior.errors import UserError
from actionprior.recording.lerobot_writer import Demonstration
from actionprior.recording.scripted import ScriptedTask

OpenTasks = Callable[[], AbstractContextManager[Sequence[ScriptedTask]]]
"""Function that makes the tasks of a recording; on exit it closes their environments."""
Demonstrate = Callable[[int], Demonstration | None]
"""Function that runs the expert's episode of a reset seed, and returns None if the expert fails."""


class _Try(NamedTuple):
    """Episode of the task number ``which`` with a reset seed."""

    which: int
    seed: int


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


@contextmanager
def in_processes(open_tasks: OpenTasks, tasks: int, count: int) -> Iterator[list[Demonstrate]]:
    """Context manager: run the episodes of tasks in processes, which work ahead.

    While an episode is written, the processes run those that come next: the next task with the next
    seed, and so on. What was run ahead is dropped if an expert fails, since the same task then
    takes the next seed. So the episodes are those of one process, unless an expert remembers
    earlier ones.

    Args:
        open_tasks: Function that makes the tasks, in each process. It has to be picklable.
        tasks: Number of tasks, of which an episode is wanted in turn.
        count: Number of processes.

    Yields:
        The function of each task. It raises what the task raises, and UserError if a process ends.
    """
    # A forked process would share the parent's connection to the renderer.
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            near, far = context.Pipe()
            process = context.Process(target=_work, args=(far, open_tasks), daemon=True)
            process.start()
            far.close()
            workers.append(_Worker(process, near))
        ahead = _Ahead(workers, tasks)
        yield [ahead.of_task(which) for which in range(tasks)]
    finally:
        for worker in workers:
            worker.process.terminate()  # it may be at work on an episode that nobody wants
            worker.process.join()
            worker.connection.close()


class _Ahead:
    """Processes at work on the episodes that come next."""

    def __init__(self, workers: list[_Worker], tasks: int) -> None:
        self._idle = list(workers)
        self._busy: dict[_Try, _Worker] = {}
        self._count, self._tasks = len(workers), tasks

    def of_task(self, which: int) -> Demonstrate:
        return lambda seed: self._run(_Try(which, seed))

    def _run(self, wanted: _Try) -> Demonstration | None:
        self._ask_from(wanted)
        worker = self._busy.pop(wanted)
        found = _answer(worker)
        self._idle.append(worker)
        if isinstance(found, BaseException):
            raise found
        # After a failure the same task tries the next seed.
        failed = _Try(wanted.which, wanted.seed + 1)
        self._ask_from(failed if found is None else self._next(wanted))
        return found

    def _ask_from(self, first: _Try) -> None:
        """Ask for an episode, and for those after it as far as processes are idle."""
        plan = [first]
        while len(plan) < self._count:
            plan.append(self._next(plan[-1]))
        unwanted = {t: w for t, w in self._busy.items() if t not in plan}
        if unwanted:
            must_wait = first not in self._busy and not self._idle
            connections = [worker.connection for worker in unwanted.values()]
            ready = wait(connections, None if must_wait else 0)
            for tried, worker in unwanted.items():
                if worker.connection in ready:
                    _answer(worker)
                    self._idle.append(self._busy.pop(tried))
        for tried in plan:
            if tried not in self._busy and self._idle:
                self._busy[tried] = self._idle.pop()
                self._busy[tried].connection.send(tried)

    def _next(self, tried: _Try) -> _Try:
        return _Try((tried.which + 1) % self._tasks, tried.seed + 1)


def _answer(worker: _Worker) -> Demonstration | BaseException | None:
    """Receive an episode, None if the expert failed, or an error.

    Raises:
        UserError: The process has ended.
    """
    try:
        found: Demonstration | BaseException | None = worker.connection.recv()
    except (EOFError, ConnectionError) as error:
        worker.process.join()
        raise UserError(
            f"a process that records has ended (exit code {worker.process.exitcode}); if it was "
            "killed for memory, lower num_processes"
        ) from error
    return found


def _work(connection: Connection, open_tasks: OpenTasks) -> None:
    """Run the episodes that are asked for, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    with suppress(EOFError, ConnectionError):
        which, seed = connection.recv()
        try:
            with open_tasks() as tasks:
                while True:
                    connection.send(_demonstrate(tasks[which], seed))
                    which, seed = connection.recv()
        except Exception as error:  # raised by open_tasks
            connection.send(_portable(error))


def _demonstrate(task: ScriptedTask, seed: int) -> Demonstration | BaseException | None:
    try:
        return task.demonstrate(seed)
    except Exception as error:  # raised again where this episode is wanted
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """Return an error that any process can read, with its traceback unless it is for people."""
    if isinstance(error, UserError):
        return UserError(str(error))
    portable = RuntimeError(f"{type(error).__name__}: {error}")
    portable.add_note(traceback.format_exc())
    return portable
