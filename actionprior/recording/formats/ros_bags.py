"""ROS bags: ROS 1 (``.bag``), and ROS 2 folders with SQLite or MCAP files.

The times are those at which the bag received the messages, since not all messages have a stamp.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.errors import UserError, missing_extra, shorten, shown
from actionprior.files.pictures import read_picture
from actionprior.recording.formats.episode import (
    ConversionError,
    Frame,
    Numbers,
    Pictures,
    SourceEpisode,
    Vector,
    colours,
)

_XYZ, _XYZW = ("x", "y", "z"), ("x", "y", "z", "w")
_FIELDS: dict[str, tuple[str, ...]] = {
    "JointState": ("position",),
    "Float64MultiArray": ("data",),
    "Float32MultiArray": ("data",),
    "Float64": ("data",),
    "Float32": ("data",),
    "Pose": (*(f"position.{n}" for n in _XYZ), *(f"orientation.{n}" for n in _XYZW)),
    "Twist": (*(f"linear.{n}" for n in _XYZ), *(f"angular.{n}" for n in _XYZ)),
}
_FIELDS["PoseStamped"] = tuple(f"pose.{name}" for name in _FIELDS["Pose"])
_FIELDS["TwistStamped"] = tuple(f"twist.{name}" for name in _FIELDS["Twist"])
_SWAPPED = {"bgr8": True, "rgb8": False}


def read_bag(path: Path) -> Iterator[SourceEpisode]:
    """Yield the one episode of a bag.

    Raises:
        ConversionError: It cannot be read.
        UserError: rosbags is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise UserError(missing_extra(error.name or "rosbags", "ros")) from None
    try:
        types = get_typestore(Stores.LATEST)  # for SQLite bags, which hold no definitions
        with AnyReader([path], default_typestore=types) as reader:
            yield _BagEpisode(str(path), reader)
    except UserError:
        raise
    except (AnyReaderError, OSError, ValueError, KeyError, AssertionError) as error:
        raise ConversionError(f"{path} cannot be read as a bag ({shorten(error)})") from error


class _BagEpisode(SourceEpisode):
    """Keys are topics, ``/joint_states``, or fields of them, ``/joint_states:velocity``."""

    def __init__(self, name: str, reader: Any) -> None:  # noqa: ANN401  rosbags' own
        self.name = name
        self._reader = reader

    def keys(self) -> list[str]:
        return sorted(self._reader.topics)

    def vector(self, key: str) -> Vector:
        topic, _, named = key.partition(":")
        place = f"{self.name}: {topic}"
        rows: list[Numbers] = []
        names: list[str] = []
        for message in self._messages(topic):
            fields = (named,) if named else self._fields(topic)
            parts = [_part(message, field, place) for field in fields]
            found = _names(message, topic, fields, parts)
            row = np.concatenate(parts)
            names = names or found
            if found != names:  # joints may come in another order
                if sorted(found) != sorted(names):
                    raise ConversionError(f"{place} has entries {names}, and later {found}")
                row = row[[found.index(name) for name in names]]
            rows.append(row)
        return Vector(names, np.stack(rows), self._times(topic))

    def pictures(self, key: str) -> Pictures:
        time_T = self._times(key)

        def read(chosen: Sequence[int]) -> Iterator[Frame]:
            messages = enumerate(self._messages(key))
            number, message = next(messages)
            for wanted in chosen:
                while number < wanted:
                    number, message = next(messages)
                yield _image(message, f"{self.name}: {key}, image {number}")

        return Pictures(len(time_T), read, time_T)

    def _connections(self, topic: str) -> list[Any]:
        found = [c for c in self._reader.connections if c.topic == topic and c.msgcount]
        if not found:
            raise self.missing(topic)
        return found

    def _messages(self, topic: str) -> Iterator[Any]:
        for connection, _, raw in self._reader.messages(self._connections(topic)):
            try:
                yield self._reader.deserialize(raw, connection.msgtype)
            except Exception as error:  # rosbags raises many kinds for damaged messages
                raise ConversionError(
                    f"{self.name}: a message of {topic} is damaged ({shorten(error)})"
                ) from error

    def _times(self, topic: str) -> Numbers:
        nanoseconds = [at for _, at, _ in self._reader.messages(self._connections(topic))]
        seconds: Numbers = (np.array(nanoseconds) - self._reader.start_time) / 1e9
        return seconds

    def _fields(self, topic: str) -> tuple[str, ...]:
        kind = self._connections(topic)[0].msgtype
        fields = _FIELDS.get(kind.rpartition("/")[2])
        if fields is None:
            raise ConversionError(
                f"{self.name}: {topic} is of type {kind}; name its field, such as {topic}:data"
            )
        return fields


def _part(message: Any, field: str, place: str) -> Numbers:  # noqa: ANN401  rosbags' own
    value = message
    for name in field.split("."):
        if name.startswith("_") or not hasattr(value, name):
            raise ConversionError(f"{place} has no field {shown(field)}")
        value = getattr(value, name)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise ConversionError(f"{place}: the field {shown(field)} holds no numbers")
    return np.atleast_1d(array).astype(np.float64)


def _names(message: Any, topic: str, fields: Sequence[str], parts: Sequence[Numbers]) -> list[str]:  # noqa: ANN401  rosbags' own
    """Name a message's entries by its joints if it has as many, else by topic and field."""
    joints = list(getattr(message, "name", None) or getattr(message, "joint_names", None) or ())
    if len(fields) == 1 and joints and len(joints) == len(parts[0]):
        return joints
    last = topic.rpartition("/")[2]
    names: list[str] = []
    for field, part in zip(fields, parts, strict=True):
        start = last if field == "data" else f"{last}.{field}"
        names += [start] if len(part) == 1 else [f"{start}_{i}" for i in range(len(part))]
    return names


def _image(message: Any, place: str) -> Frame:  # noqa: ANN401  rosbags' own
    data = getattr(message, "data", None)
    if hasattr(message, "format"):  # CompressedImage
        return read_picture(np.asarray(data, np.uint8).tobytes(), place)
    encoding = getattr(message, "encoding", "")
    if encoding not in _SWAPPED:
        raise ConversionError(
            f"{place} has the encoding {encoding!r}, expected rgb8, bgr8, or a compressed image"
        )
    rows, columns, step = int(message.height), int(message.width), int(message.step)
    flat = np.asarray(data, np.uint8)
    if step < 3 * columns or flat.size != rows * step:
        raise ConversionError(f"{place} has {flat.size} bytes for {rows} x {columns} pixels")
    image = flat.reshape(rows, step)[:, : 3 * columns].reshape(rows, columns, 3)
    return colours(image[..., ::-1] if _SWAPPED[encoding] else image, place)
