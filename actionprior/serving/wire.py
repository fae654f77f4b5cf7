"""Wire format of openpi's clients: msgpack with NumPy arrays, decoded within bounds.

An array is a map of ``b"__ndarray__"``, ``b"data"``, ``b"dtype"`` and ``b"shape"``, a NumPy scalar
one of ``b"__npgeneric__"``, ``b"data"`` and ``b"dtype"``. Source of the format:
``openpi_client.msgpack_numpy`` 0.1.2.
"""

import math
from typing import Any

import msgpack
import numpy as np

from actionprior.errors import UserError, shorten

DTYPES = {
    np.dtype(code).newbyteorder("<").str: np.dtype(code)
    for code in ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
}
"""Types of arrays: booleans, integers and floats in little-endian order."""
MOST_AXES = 4
LONGEST_AXIS = 65536
LONGEST_TEXT = 4096  # bytes
LONGEST_LIST = 512
MOST_CONTAINERS = 64
"""Lists, maps and arrays in a message. Each takes as little as one byte, but 64 bytes in memory."""

_ARRAY = {b"__ndarray__", b"data", b"dtype", b"shape"}
_SCALAR = {b"__npgeneric__", b"data", b"dtype"}


class WireError(UserError):
    """A message violates the wire format."""


def pack(message: dict[str, Any]) -> bytes:
    """Encode plain data, NumPy arrays and scalars."""
    packed: bytes = msgpack.packb(message, default=_plain)
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """Decode a message; arrays are read-only views of it.

    The constants of this module bound the cost by the message's length.

    Raises:
        WireError: The message is not a map of strings to plain data, lists of numbers, arrays of
            ``DTYPES`` and NumPy scalars within the bounds. No other error is raised.
    """
    try:
        message = _Decoder().decode(data)
    except WireError:
        raise
    except ValueError as error:  # base class of msgpack's errors
        raise WireError(f"the message is no msgpack within bounds: {_reason(error)}") from None
    if type(message) is not dict:
        raise WireError(f"the message is a {type(message).__name__}, expected a map")
    if odd := [key for key in message if not isinstance(key, str)]:
        raise WireError(f"the message has the key {odd[0][:64]!r}, expected strings as keys")
    return message


class _Decoder:
    """Decode one message and count its containers."""

    def __init__(self) -> None:
        self._containers = 0

    def decode(self, data: bytes) -> Any:  # noqa: ANN401  # any message
        return msgpack.unpackb(
            data,
            object_pairs_hook=self._map,
            list_hook=self._list,
            ext_hook=_refuse_extension,
            strict_map_key=True,
            max_str_len=LONGEST_TEXT,
            max_bin_len=len(data),
            max_array_len=LONGEST_LIST,
            max_map_len=MOST_CONTAINERS,
            max_ext_len=0,
        )

    def _map(self, pairs: list[tuple[str | bytes, Any]]) -> Any:  # noqa: ANN401  a message's
        self._count()
        found = dict(pairs)
        if len(found) < len(pairs):
            raise WireError("the message has a map with a key twice")
        if b"__ndarray__" in found:
            return _array(found)
        if b"__npgeneric__" in found:
            return _scalar(found)
        return found

    def _list(self, values: list[Any]) -> list[Any]:
        self._count()
        if odd := [v for v in values if type(v) not in (bool, int, float)]:
            raise WireError(
                f"the message has a list with a {type(odd[0]).__name__} in it; "
                "expected numbers, and an array for what has several axes"
            )
        return values

    def _count(self) -> None:
        self._containers += 1
        if self._containers > MOST_CONTAINERS:
            raise WireError(f"the message has over {MOST_CONTAINERS} lists, maps and arrays")


def _array(found: dict[Any, Any]) -> np.ndarray[Any, Any]:
    if found.keys() != _ARRAY:
        raise WireError(f"an array has the keys {_names(found)}, expected {_names(_ARRAY)}")
    dtype, shape, data = _dtype(found[b"dtype"]), found[b"shape"], found[b"data"]
    if (
        type(shape) is not list
        or len(shape) > MOST_AXES
        or not all(type(axis) is int and 0 <= axis <= LONGEST_AXIS for axis in shape)
    ):
        raise WireError(
            f"an array has the shape {repr(shape)[:64]}, expected a list of up to {MOST_AXES} "
            f"lengths of 0 to {LONGEST_AXIS}"
        )
    if type(data) is not bytes:
        raise WireError(f"an array's data are a {type(data).__name__}, expected bytes")
    size = math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise WireError(
            f"an array of {dtype} of shape {shape} has {len(data)} bytes, expected {size}"
        )
    return np.frombuffer(data, dtype).reshape(shape) if size else np.empty(shape, dtype)


def _scalar(found: dict[Any, Any]) -> np.generic:
    if found.keys() != _SCALAR:
        raise WireError(f"a NumPy scalar has the keys {_names(found)}, expected {_names(_SCALAR)}")
    dtype, data = _dtype(found[b"dtype"]), found[b"data"]
    if type(data) not in (bool, int, float):
        raise WireError(f"a NumPy scalar's data are a {type(data).__name__}, expected a number")
    try:
        value: np.generic = dtype.type(data)
    except (OverflowError, ValueError):
        raise WireError(f"a NumPy scalar of {dtype} has the value {data}") from None
    return value


def _dtype(name: object) -> np.dtype[Any]:
    dtype = DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise WireError(f"an array has the dtype {str(name)[:64]!r}, expected one of {[*DTYPES]}")
    return dtype


def _refuse_extension(code: int, data: bytes) -> None:
    raise WireError(f"the message has an extension type, {code}; expected none")


def _plain(value: object) -> dict[bytes, Any]:
    """Encode arrays and scalars, which msgpack does not know."""
    if isinstance(value, np.ndarray) and value.dtype.str in DTYPES:
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic) and value.dtype.str in DTYPES:
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    kind = getattr(value, "dtype", type(value).__name__)
    raise WireError(f"a {kind} cannot be sent; expected plain data or an array of {[*DTYPES]}")


def _names(keys: Any) -> list[str]:  # noqa: ANN401  # a set or a dict's keys
    return sorted(str(key)[:32] for key in keys)[:8]


def _reason(error: ValueError) -> str:
    if isinstance(error, msgpack.StackError):
        return "it is nested too deeply"
    if isinstance(error, msgpack.ExtraData):
        return "bytes follow its end"
    return shorten(error) if str(error) else "it has a byte that no type begins with"
