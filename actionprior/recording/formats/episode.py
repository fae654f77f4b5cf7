"""An episode of any recording: named vectors over time, and images.

Axes: T samples, n entries of a vector.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionprior.errors import UserError, near_matches, shown

Frame = NDArray[np.uint8]
Numbers = NDArray[np.float64]


class ConversionError(UserError):
    """A recording cannot be converted; the message names the file."""


class Vector(NamedTuple):
    """A vector over time.

    Attributes:
        names: Names of the n entries.
        values_Tn: Values (T, n).
        time_T: Time of each sample [s]; None: the samples are those of the recording's own clock.
    """

    names: list[str]
    values_Tn: Numbers
    time_T: Numbers | None = None


class Pictures(NamedTuple):
    """Images over time.

    Attributes:
        length: Number T of images.
        read: Function that yields the uint8 (Y, X, 3) images of ascending indices.
        time_T: Time of each image [s]; None: as for ``Vector``.
    """

    length: int
    read: Callable[[Sequence[int]], Iterator[Frame]]
    time_T: Numbers | None = None


@dataclass(frozen=True)
class Layout:
    """What a kind of file holds by convention, used where the user names nothing else.

    Attributes:
        state: Keys of the state.
        action: Keys of the action.
        cameras: Key of each camera's images.
    """

    state: Sequence[str] = ()
    action: Sequence[str] = ()
    cameras: dict[str, str] = field(default_factory=dict)


class SourceEpisode(ABC):
    """One episode.

    Attributes:
        name: File, and place in it, for messages.
        layout: Keys by convention.
    """

    name: str
    layout: Layout = Layout()

    @abstractmethod
    def keys(self) -> list[str]:
        """List the keys of vectors and images."""

    @abstractmethod
    def vector(self, key: str) -> Vector:
        """Read a vector.

        Raises:
            ConversionError: There is none of this key, or it holds no numbers.
        """

    @abstractmethod
    def pictures(self, key: str) -> Pictures:
        """Open the images of a camera.

        Raises:
            ConversionError: There are none of this key.
        """

    def instruction(self) -> str:
        """Return the task in words, empty if the recording does not say it."""
        return ""

    def missing(self, key: str) -> ConversionError:
        """Return the error about a key that the episode does not have."""
        return ConversionError(f"{self.name}: has no {shown(key)}{near_matches(key, self.keys())}")


def numbers(values: object, place: str) -> Numbers:
    """Return an array as float64 (T, n).

    Args:
        values: Array of one or two axes.
        place: Where the values stand, for messages.

    Raises:
        ConversionError: They are no numbers, or have other axes.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ConversionError(f"{place} holds {array.dtype}, expected numbers")
    if array.ndim not in (1, 2) or not array.size:
        raise ConversionError(f"{place} has the shape {array.shape}, expected (samples, entries)")
    return array.reshape(len(array), -1).astype(np.float64)


def entry_names(key: str, width: int) -> list[str]:
    """Name the entries of an array: ``qpos_0`` and so on, or the last part of a key of one."""
    last = key.rpartition("/")[2]
    return [last] if width == 1 else [f"{last}_{index}" for index in range(width)]


def colours(image: object, place: str) -> Frame:
    """Return an image of an array as uint8 (Y, X, 3).

    Raises:
        ConversionError: It is no 8-bit colour image.
    """
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise ConversionError(
            f"{place} has images of {array.dtype} and shape {array.shape}, expected uint8 (rows, "
            "columns, 3)"
        )
    return np.ascontiguousarray(array)


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Sort paths so that numbers in names count: ``episode_2`` before ``episode_10``."""
    return sorted(paths, key=lambda path: natural_key(str(path)))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key by which numbers in names are compared as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
