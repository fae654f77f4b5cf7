"""HDF5 files in the layouts of robomimic (many episodes) and ALOHA (one), or any other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.errors import UserError, missing_extra, shorten, shown
from actionprior.files.pictures import read_picture
from actionprior.recording.formats.episode import (
    ConversionError,
    Frame,
    Layout,
    Pictures,
    SourceEpisode,
    Vector,
    colours,
    entry_names,
    natural_key,
    numbers,
)

MOST_CHUNK = 1 << 30
"""Size of a compressed part above which it is not unpacked [bytes]."""
MOST_NUMBERS = 1 << 28
_ROBOMIMIC_STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
_LIBERO_STATE = ("ee_pos", "ee_ori", "gripper_states")
_INSTRUCTIONS = ("task", "language_instruction", "instruction")


def read_hdf5(path: Path) -> Iterator[SourceEpisode]:
    """Yield the episodes of an HDF5 file: each ``data/demo_…``, or the whole file.

    Raises:
        ConversionError: It is no HDF5 file.
        UserError: h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise UserError(missing_extra("h5py", "hdf5")) from None
    try:
        with h5py.File(path, "r") as file:
            if _group(file, "data") is None:
                yield _Hdf5Episode(str(path), file, [file.attrs])
                return
            demos = sorted(file["data"], key=natural_key)
            for demo in demos:
                if (group := _group(file["data"], demo)) is not None:
                    attributes = [group.attrs, file["data"].attrs]
                    yield _Hdf5Episode(f"{path}, data/{demo}", group, attributes)
    except (OSError, RuntimeError, KeyError) as error:
        raise ConversionError(f"{path} cannot be read as HDF5 ({shorten(error)})") from error


def _group(parent: Any, name: str) -> Any:  # noqa: ANN401  h5py has no types
    """Return a group inside the file, None if there is none; links elsewhere are not followed."""
    import h5py

    inside = isinstance(parent.get(name, getlink=True), h5py.HardLink)
    found = parent[name] if inside else None
    return found if isinstance(found, h5py.Group) else None


class _Hdf5Episode(SourceEpisode):
    def __init__(self, name: str, group: Any, attributes: list[Any]) -> None:  # noqa: ANN401  h5py has no types
        self.name = name
        self._group, self._attributes = group, attributes
        self._sets = dict(_data_sets(group))
        self.layout = self._conventions()

    def keys(self) -> list[str]:
        return list(self._sets)

    def vector(self, key: str) -> Vector:
        found, place = self._data_set(key), f"{self.name}: {shown(key)}"
        if found.size > MOST_NUMBERS:
            raise ConversionError(f"{place} has {found.size} numbers, too many for a vector")
        values_Tn = numbers(found[:], place)
        return Vector(entry_names(key, values_Tn.shape[1]), values_Tn)

    def pictures(self, key: str) -> Pictures:
        found, place = self._data_set(key), f"{self.name}: {shown(key)}"

        def read(index: int) -> Frame:
            value = found[index]
            if found.ndim == 4:
                return colours(value, place)
            return read_picture(np.asarray(value, np.uint8).tobytes(), f"{place}, image {index}")

        return Pictures(len(found), lambda chosen: map(read, chosen))

    def instruction(self) -> str:
        for attributes in self._attributes:
            for name in _INSTRUCTIONS:
                if name in attributes:
                    return _text(attributes[name])
            if "problem_info" in attributes:  # LIBERO's
                try:
                    return str(json.loads(_text(attributes["problem_info"]))[_INSTRUCTIONS[1]])
                except (ValueError, KeyError, TypeError, RecursionError):
                    return ""
        return ""

    def _conventions(self) -> Layout:
        if "observations/qpos" in self._sets:
            start, state = "observations/images/", ["observations/qpos"]
        else:
            start = "obs/"
            state = next(
                (
                    [f"obs/{name}" for name in names]
                    for names in (_ROBOMIMIC_STATE, _LIBERO_STATE)
                    if all(f"obs/{name}" in self._sets for name in names)
                ),
                [],
            )
        cameras = {
            key.removeprefix(start).removesuffix("_image").removesuffix("_rgb"): key
            for key, found in self._sets.items()
            if key.startswith(start) and _is_pictures(found, start)
        }
        action = [key for key in ("action", "actions") if key in self._sets]
        return Layout(state, action[:1], cameras)

    def _data_set(self, key: str) -> Any:  # noqa: ANN401  h5py has no types
        found = self._sets.get(key.strip("/"))
        if found is None:
            raise self.missing(key)
        part = found.chunks or found.shape[1:]
        if not found.shape or np.prod(part, dtype=float) * found.dtype.itemsize > MOST_CHUNK:
            raise ConversionError(
                f"{self.name}: {shown(key)} has the shape {found.shape} in parts of {part}, which "
                "is no vector or image over time"
            )
        return found


def _is_pictures(found: Any, start: str) -> bool:  # noqa: ANN401  h5py has no types
    """Check for images: four axes, or in ALOHA's folder of images also compressed ones."""
    whole = found.ndim == 4 and found.dtype == np.uint8 and 3 in (found.shape[1], found.shape[-1])
    return whole or (start != "obs/" and found.ndim in (1, 2))


def _data_sets(group: Any, prefix: str = "", depth: int = 8) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  h5py has no types
    """Yield the arrays of a file by path. Links, and arrays in other files, are left out."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        found = group[name]
        if isinstance(found, h5py.Group) and depth:
            yield from _data_sets(found, f"{prefix}{name}/", depth - 1)
        elif isinstance(found, h5py.Dataset) and not found.external and not found.is_virtual:
            yield f"{prefix}{name}", found


def _text(value: object) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
