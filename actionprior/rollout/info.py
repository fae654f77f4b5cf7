"""Read success and instruction from an environment's ``info``, whatever type they have there."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from actionprior.rollout.compatibility import RolloutError

TASK = "task"
"""Entry that holds the success of the whole task if an environment reports several conditions."""


def read_success(value: object, env_id: str, key: str) -> bool:
    """Return the success that an environment reports.

    Args:
        value: A bool, 0 or 1, an array or list of one such element, or a dictionary that holds one
            of these under ``task``.
        env_id: Name of the environment in messages.
        key: Key of ``info`` that holds the value.

    Raises:
        RolloutError: The value is anything else, such as text, NaN, a fraction or several elements.
    """
    found = value
    if isinstance(found, Mapping):
        if TASK not in found:
            raise RolloutError(
                f"environment {env_id!r} reports success as a dictionary: info[{key!r}] has keys "
                f"{list(found)}, expected {TASK!r} among them, or a single bool"
            )
        found = found[TASK]
    number = _one_element(found)
    if isinstance(number, bool | int | float) and number in (0, 1):
        return bool(number)
    raise RolloutError(
        f"environment {env_id!r} reports success as info[{key!r}] = {_shown(value)}, expected a "
        "bool, 0 or 1, or one element of these; name another key with success_key"
    )


def read_instruction(value: object, env_id: str, key: str) -> str:
    """Return the instruction that an environment gives.

    Args:
        value: Text, UTF-8 bytes, or an array or list of one such element.
        env_id: Name of the environment in messages.
        key: Key of ``info`` that holds the value.

    Raises:
        RolloutError: The value is anything else.
    """
    found = _one_element(value)
    if isinstance(found, bytes):
        with suppress(UnicodeDecodeError):  # the message shows the bytes
            found = found.decode()
    if isinstance(found, str):
        return str(found)
    raise RolloutError(
        f"environment {env_id!r} gives the instruction info[{key!r}] = {_shown(value)}, expected "
        "one text; set observation_map.text to a fixed one, or observation_map.instruction to "
        "another key"
    )


def _one_element(value: Any) -> object:  # noqa: ANN401  an environment's own
    """Return the only element of an array, tensor or list of any rank, and all else unchanged."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(plain, list | tuple) and len(plain) == 1:
        plain = _one_element(plain[0])
    return plain


def _shown(value: Any) -> str:  # noqa: ANN401  an environment's own
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
