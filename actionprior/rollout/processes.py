"""Environments in processes of their own, whose errors are the same as without processes."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, override

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from actionprior.errors import UserError
from actionprior.rollout.compatibility import RolloutError


class ProcessEnvs(AsyncVectorEnv):
    """One process per environment.

    Gymnasium warns of an error in a process with the process's traceback, and raises it again.
    A user-facing error needs no traceback. Any other error takes it as a note.
    """

    @override
    def step_wait(self, timeout: float | None = None) -> Any:
        """Wait for the environments' steps.

        Raises:
            RolloutError: A process has ended.
        """
        with _reported(self):
            return super().step_wait(timeout)

    @override
    def reset_wait(self, timeout: float | None = None) -> Any:
        """Wait for the environments' resets.

        Raises:
            RolloutError: A process has ended.
        """
        with _reported(self):
            return super().reset_wait(timeout)

    @override
    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        with warnings.catch_warnings(record=True) as logged:
            warnings.simplefilter("always")
            try:
                super()._raise_if_errors(successes)
            except UserError:
                raise
            except Exception as error:
                error.add_note("\n".join(str(line.message) for line in logged))
                raise


@contextmanager
def _reported(envs: AsyncVectorEnv) -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        envs._state = AsyncState.DEFAULT  # or close() waits for the step again
        # A process ends a little after its pipe, and has its exit code after its sentinel.
        ended = wait([process.sentinel for process in envs.processes], timeout=5)
        codes = [_exit_code(p) for p in envs.processes if p.sentinel in ended]
        raise RolloutError(
            f"a process of an environment has ended (exit code {codes[0] if codes else '?'}); if "
            "it was killed for memory, lower num_envs"
        ) from error


def _exit_code(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode
