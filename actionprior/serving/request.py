"""Requests of clients: an observation, and the actions executed since the last one.

Axes: n_s state features, n_a action features, k steps since the last message, d committed steps.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from actionprior.chunk_planner import ExecutedStep, Memory
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.guard import Guard
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.policy_input import (
    CheckedObservation,
    check_observation,
    observation_keys,
)
from actionprior.errors import PolicyError

OPTIONAL = ("prompt", "reset", "executed", "states", "committed")


class Request(NamedTuple):
    """A checked message.

    Attributes:
        sensed: Checked observation.
        seed: Seed of the episode that starts with this message; None continues the episode.
        executed: Steps executed since the last message, oldest first.
        committed: Actions (d, n_a) that the robot executes next in any case, or None.
    """

    sensed: CheckedObservation
    seed: int | None
    executed: list[ExecutedStep]
    committed: FloatArray | None


def read_request(
    message: Mapping[str, Any],
    robot: Embodiment,
    chunk_length: int,
    image_shape: ImageShape | None = None,
) -> Request:
    """Check a message.

    A message holds an observation for :class:`actionprior.Policy`, whose ``task`` may be called
    ``prompt``. Optional keys are ``reset`` (true, or the seed of an episode that starts),
    ``executed`` (k, n_a) with ``states`` (k, n_s), the actions executed in these states, and
    ``committed`` (d, n_a).

    Args:
        message: Decoded message.
        robot: Robot of the policy.
        chunk_length: Steps H of a chunk.
        image_shape: Size to which the images are brought, see ``check_observation``.

    Raises:
        PolicyError: A key is missing or unknown, or a value has a wrong shape or type or is not
            finite; the message names the key.
    """
    observed = set(observation_keys(robot))
    if unknown := [key for key in message if key not in observed and key not in OPTIONAL]:
        raise PolicyError(
            f"unknown keys {_short(unknown)}; robot {robot.name!r} has {sorted(observed)}, and "
            f"{list(OPTIONAL)} are optional"
        )
    if "task" in message and "prompt" in message:
        raise PolicyError("'task' and 'prompt' mean the same; expected only one of them")
    observation = {key: _array(message[key]) for key in message if key in observed}
    if "prompt" in message:
        observation["task"] = message["prompt"]
    sensed = check_observation(observation, robot, image_shape)
    width = len(robot.action_features)
    committed = None
    if "committed" in message:
        committed = _rows(message, "committed", width)
        if not 0 < len(committed) < chunk_length:
            raise PolicyError(
                f"'committed' has {len(committed)} actions, expected 1 to {chunk_length - 1}, "
                "fewer than a chunk's"
            )
    return Request(sensed, _seed(message.get("reset", False)), _executed(message, robot), committed)


def remember(memory: Memory, request: Request) -> Memory:
    """Return the memory for answering a request; it keeps only as much of the past as needed."""
    if request.seed is not None:
        memory = Memory(request.seed, memory.history_length)
    memory.pairs = [*memory.pairs, *request.executed]
    # A guard compares with the last action, even if the policy reads no history.
    memory.pairs = memory.history or memory.pairs[-1:]
    memory.instruction = request.sensed.task
    return memory


def check_chunk(
    chunk: FloatArray, guard: Guard, request: Request, last_action: FloatArray | None
) -> FloatArray:
    """Compare an observed state and the chunk (H, n_a) that answers it with what was recorded.

    Args:
        chunk: Actions, of which the committed ones are under way and stay unchanged.
        guard: Guard of the session.
        request: Request that the chunk answers.
        last_action: Action that was executed last; None: none that is known.

    Returns:
        The chunk, clipped if the guard clips.
    """
    guard.check_state(request.sensed.state)
    if request.committed is None:
        return guard.check_actions(chunk, last_action)
    under_way = chunk[: len(request.committed)]
    rest = guard.check_actions(chunk[len(under_way) :], under_way[-1])
    return np.concatenate([under_way, rest])


def _seed(reset: object) -> int | None:
    if isinstance(reset, (bool, np.bool_)):
        return 0 if reset else None
    if isinstance(reset, (int, np.integer)) and reset >= 0:
        return int(reset)
    raise PolicyError(f"'reset' is {_shown(reset)}, expected true, false or a seed of 0 or more")


def _executed(message: Mapping[str, Any], robot: Embodiment) -> list[ExecutedStep]:
    if ("executed" in message) != ("states" in message):
        raise PolicyError("'executed' and 'states' go together; found one of them")
    if "executed" not in message:
        return []
    actions = _rows(message, "executed", len(robot.action_features))
    states = _rows(message, "states", len(robot.state_features))
    if len(actions) != len(states):
        raise PolicyError(
            f"'executed' has {len(actions)} steps and 'states' {len(states)}; expected the same "
            "number"
        )
    return [ExecutedStep(state, action) for state, action in zip(states, actions, strict=True)]


def _rows(message: Mapping[str, Any], key: str, width: int) -> FloatArray:
    value = _array(message[key])
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.number):
        raise PolicyError(f"{key!r} is a {_kind(value)}, expected an array of numbers")
    if value.ndim != 2 or value.shape[1] != width:
        raise PolicyError(f"{key!r} has shape {value.shape}, expected (steps, {width})")
    rows = value.astype(np.float32)
    if not np.isfinite(rows).all():
        raise PolicyError(f"{key!r} is not finite at step {np.argwhere(~np.isfinite(rows))[0, 0]}")
    return rows


def _array(value: Any) -> Any:  # noqa: ANN401  of any type: a client sent it
    """Convert a list of numbers to float64, because NumPy could choose any type, even object."""
    return np.array(value, np.float64) if isinstance(value, list) else value


def _shown(value: object) -> str:
    plain = isinstance(value, (int, float, str, np.generic))
    return f"{value!r:.64}" if plain else f"a {type(value).__name__}"


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__


def _short(keys: list[str]) -> str:
    listed = ", ".join(repr(key[:64]) for key in keys[:8])
    return listed + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
