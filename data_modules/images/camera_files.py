"""Locate the images of LeRobot datasets of formats v3.0, v2.1 and v2.0.

Format v3.0 stores many episodes in one video and the start time of each. The older formats store
one video per episode. Images of all formats may instead be in the data files. Videos may stay on a
remote storage, from which they are read through fsspec.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.files.digest import digest
from data_modules.images.pixels import (
    DepthRange,
    channels_first,
    depth_unit,
    is_depth,
    why_no_colour,
)
from data_modules.images.video import video_seconds
from data_modules.lerobot.columns import Columns
from data_modules.lerobot.named_files import file_below, fill_template, url_below
from data_modules.lerobot.remote import list_remote_files, source_url
from data_modules.lerobot.source import fingerprint, is_old

Size = tuple[int, int]


class MissingPlaceError(DataError):
    """The metadata do not say in which file an episode's frames or video are."""


class VideoPart(NamedTuple):
    """Path or URL of an episode's video, and the episode's place in it."""

    source: str
    start: float  # [s]
    seconds: float | None  # duration of the episode in the video; None if unknown


class CameraFiles:
    """Image and video files of one dataset.

    Args:
        columns: The dataset.
        cameras: Image keys to use.
        url: URL of a folder that holds the dataset's ``videos``, as fsspec reads it. By default
            the videos are in the dataset's own folder.
        depth_ranges: Depths that become black and white, by camera [m].

    Raises:
        DataError: The dataset has no such camera.
    """

    def __init__(
        self,
        columns: Columns,
        cameras: list[str],
        url: str | None = None,
        depth_ranges: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> None:
        known = image_keys(columns)
        if unknown := [camera for camera in cameras if camera not in known]:
            raise DataError(f"{columns.root}: has no camera {unknown[0]!r}; it has {known}")
        self.columns = columns
        self.cameras = cameras
        self.depth_ranges = depth_ranges
        self.url = url.rstrip("/") if url and any(map(self.is_video, cameras)) else None
        self._old = is_old(columns.info)

    def is_video(self, camera: str) -> bool:
        """Return whether a camera's images are in videos, or else in the data files."""
        return bool(self.columns.info["features"][camera]["dtype"] == "video")

    def size(self, camera: str) -> Size:
        """Return the recorded rows and columns of a camera's images."""
        return recorded_size(self.columns.info["features"][camera])

    def depth_range(self, camera: str) -> DepthRange | None:
        """Return the range in which a camera's images of more than 8 bits are scaled."""
        if camera not in self.depth_ranges:
            return None
        nearest, farthest = self.depth_ranges[camera]
        return DepthRange(nearest, farthest, depth_unit(self.columns.info["features"][camera]))

    def check_pixels(self) -> list[str]:
        """Return one line for each camera whose images are no 8-bit colour, on what is done.

        Raises:
            DataError: A camera records depth, and its images have no declared range.
        """
        lines = []
        for camera in self.cameras:
            feature = self.columns.info["features"][camera]
            if is_depth(feature) and (self.is_video(camera) or camera not in self.depth_ranges):
                raise DataError(
                    f"{self.columns.root}: camera {camera!r} records depth, which is no colour; "
                    "remove it from the robot's cameras, or record it as images and set "
                    f"depth_ranges: {{{camera}: [0.1, 2.0]}} (metres that become black and white)"
                )
            if camera in self.depth_ranges:
                near, far = self.depth_ranges[camera]
                done = f"depth from {near:g} to {far:g} m becomes 0 to 255, in all three colours"
                lines.append(f"{self.columns.root} {camera}: {done}")
            elif reason := why_no_colour(feature):
                lines.append(f"{self.columns.root} {camera}: {reason} become grey colours")
        return lines

    def video(self, episode: int, camera: str) -> VideoPart:
        """Locate an episode's video.

        Raises:
            DataError: The dataset's name of it leads out of the dataset.
        """
        row = self.columns.episodes[episode]
        path = self._video_path(episode, camera)
        root = self.columns.root
        source = url_below(self.url, path) if self.url else str(file_below(root, path))
        if self._old:
            return VideoPart(source, 0.0, None)
        start = row.get(f"videos/{camera}/from_timestamp")
        stop = row.get(f"videos/{camera}/to_timestamp")
        if not _is_time(start):
            raise MissingPlaceError(
                f"{root}: meta does not define where episode {episode} starts in the video of "
                f"{camera!r} (from_timestamp is {start!r})"
            )
        return VideoPart(source, start, stop - start if _is_time(stop) else None)

    def video_times(self, episode: int, camera: str, rows: IntArray) -> list[float]:
        """Return the times in the video [s] at which an episode's rows are shown.

        By default these are the timestamps. They count from the first one if the last lies beyond
        the video: the clock is then the machine's or the whole recording's. They are 1 / fps apart
        with ``trust_fps``, or if the episode's duration in the video fits its number of frames
        better than its timestamps: such a video was written frame by frame.
        """
        part, fps = self.video(episode, camera), float(self.columns.info["fps"])
        first, count = int(self.columns.starts_E[episode]), int(self.columns.lengths_E[episode])
        stamp_N = self.columns.timestamp_N[first : first + count]
        if abs(stamp_N[0]) > 0.5 / fps and not self.columns.trust_fps:
            seconds = video_seconds(part.source) if part.seconds is None else part.seconds
            if stamp_N[0] < 0 or (seconds is not None and stamp_N[-1] > seconds - 0.5 / fps):
                stamp_N = stamp_N - stamp_N[0]
        stamped, seconds = float(stamp_N[-1]) + 1 / fps, part.seconds
        if seconds is None and abs(stamped - count / fps) > 0.5 / fps:
            seconds = video_seconds(part.source)  # older formats have a video for each episode
        by_rate = self.columns.trust_fps or (
            seconds is not None and abs(stamped - seconds) > abs(count / fps - seconds) + 0.5 / fps
        )
        times = rows / fps if by_rate else stamp_N[rows]
        found: list[float] = (part.start + times).tolist()
        return found

    def data_file(self, episode: int) -> str:
        """Return the path or URL of the parquet file that holds an episode's frames.

        Raises:
            DataError: The dataset's name of it leads out of the dataset.
        """
        root, name = self.columns.root, self._dataset_path("data_path", "data", episode)
        url = source_url(root)
        return url_below(url, name) if url else str(file_below(root, name))

    def missing_videos(self, episodes: list[int]) -> dict[int, str]:
        """Return a message for each episode of which a camera's video is missing.

        Raises:
            DataError: The URL cannot be reached, or a name leads out of the dataset.
        """
        found: dict[str, bool] = {}
        wrong = {}
        for camera in filter(self.is_video, self.cameras):
            for episode in episodes:
                try:
                    path = self._video_path(episode, camera)
                except MissingPlaceError as error:
                    wrong[episode] = str(error)
                    continue
                if path not in found:
                    found[path] = (
                        path in self._remote_files
                        if self.url
                        else file_below(self.columns.root, path).is_file()
                    )
                if not found[path]:
                    wrong[episode] = (
                        f"{self._video_home}: video file {path} of camera {camera!r}, "
                        f"episode {episode}, is missing"
                    )
        return wrong

    def episodes_without_video(self) -> list[int]:
        """Return the episodes that lack a camera's video; all if the videos cannot be located."""
        episodes = list(range(len(self.columns.lengths_E)))
        try:
            return sorted(self.missing_videos(episodes))
        except DataError:
            return episodes

    def fingerprint(self) -> str:
        """Return a hash that changes with the dataset's files."""
        if self.url is None:
            return fingerprint(self.columns.root, ("meta", "data", "videos"))
        facts = [self.url, fingerprint(self.columns.root), *sorted(self._remote_files.items())]
        return digest(repr(facts))

    # ---- parts --------------------------------------------------------------------------------

    @property
    def _video_home(self) -> str:
        return self.url or str(self.columns.root)

    @cached_property
    def _remote_files(self) -> dict[str, str]:
        """Version mark of each video at the URL, by its path in the dataset."""
        assert self.url is not None
        return list_remote_files(self.url, ("videos",))

    def _video_path(self, episode: int, camera: str) -> str:
        return self._dataset_path("video_path", f"videos/{camera}", episode, video_key=camera)

    def _dataset_path(self, template: str, kind: str, episode: int, **more: str) -> str:
        """Fill in a path template of ``meta/info.json``."""
        info, row = self.columns.info, self.columns.episodes[episode]
        try:
            fields: dict[str, Any] = dict(more)
            if self._old:
                number = int(row["episode_index"])
                chunk = number // int(info["chunks_size"])
                fields |= {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": number}
            else:
                for name in ("chunk_index", "file_index"):
                    fields[name] = _whole(row[f"{kind}/{name}"])
            return fill_template(self.columns.root, info[template], fields)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise MissingPlaceError(
                f"{self.columns.root}: meta does not define the {template} of episode {episode} "
                f"({cause})"
            ) from error


def _whole(value: object) -> int:
    """Return a whole number, which tables that were edited may hold as a float.

    Raises:
        ValueError: It is null, NaN or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"found {value!r}, expected a whole number")
    return int(value)


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def recorded_size(feature: dict[str, Any]) -> Size:
    """Return the rows and columns of a camera's images in ``meta/info.json``."""
    shape = tuple(int(n) for n in feature["shape"])
    return (shape[1], shape[2]) if channels_first(feature) else (shape[0], shape[1])


def image_keys(columns: Columns) -> list[str]:
    """Return the cameras in a dataset's metadata."""
    features = columns.info["features"]
    return sorted(k for k, f in features.items() if f["dtype"] in ("image", "video"))
