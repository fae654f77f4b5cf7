"""Locate the images of LeRobot datasets of formats v3.0 and v2.1.

Format v3.0 stores many episodes in one video and the start time of each. Format v2.1 stores one
video per episode. Images of both formats may instead be in the data files. Videos may stay on a
remote storage, from which they are read through fsspec.
"""

from functools import cached_property
from typing import Any, NamedTuple

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.files.digest import digest
from data_modules.lerobot.columns import Columns
from data_modules.lerobot.remote import list_remote_files, source_url
from data_modules.lerobot.source import fingerprint, is_old

Size = tuple[int, int]


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

    Raises:
        DataError: The dataset has no such camera.
    """

    def __init__(self, columns: Columns, cameras: list[str], url: str | None = None) -> None:
        known = image_keys(columns)
        if unknown := [camera for camera in cameras if camera not in known]:
            raise DataError(f"{columns.root}: has no camera {unknown[0]!r}; it has {known}")
        self.columns = columns
        self.cameras = cameras
        self.url = url.rstrip("/") if url and any(map(self.is_video, cameras)) else None
        self._old = is_old(columns.info)

    def is_video(self, camera: str) -> bool:
        """Return whether a camera's images are in videos, or else in the data files."""
        return bool(self.columns.info["features"][camera]["dtype"] == "video")

    def size(self, camera: str) -> Size:
        """Return the recorded rows and columns of a camera's images."""
        feature = self.columns.info["features"][camera]
        shape = tuple(int(n) for n in feature["shape"])
        names = feature.get("names")
        colours = (1, 3, 4)
        channels_first = (bool(names) and str(names[0]).startswith("channel")) or (
            shape[0] in colours and shape[-1] not in colours
        )
        return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])

    def video(self, episode: int, camera: str) -> VideoPart:
        """Locate an episode's video."""
        row = self.columns.episodes[episode]
        source = f"{self._video_home}/{self._video_path(episode, camera)}"
        if self._old:
            return VideoPart(source, 0.0, None)
        start = float(row[f"videos/{camera}/from_timestamp"])
        stop = row.get(f"videos/{camera}/to_timestamp")
        return VideoPart(source, start, None if stop is None else float(stop) - start)

    def video_times(self, episode: int, camera: str, rows: IntArray) -> list[float]:
        """Return the times in the video [s] at which an episode's rows are shown.

        By default these are the timestamps. They are 1 / fps apart with ``trust_fps``, or if the
        episode's duration in the video fits its number of frames better than its timestamps: such
        a video was written frame by frame.
        """
        part, fps = self.video(episode, camera), float(self.columns.info["fps"])
        first, count = int(self.columns.starts_E[episode]), int(self.columns.lengths_E[episode])
        stamped = float(self.columns.timestamp_N[first + count - 1]) + 1 / fps
        by_rate = self.columns.trust_fps or (
            part.seconds is not None
            and abs(stamped - part.seconds) > abs(count / fps - part.seconds) + 0.5 / fps
        )
        times = rows / fps if by_rate else self.columns.timestamp_N[first + rows]
        found: list[float] = (part.start + times).tolist()
        return found

    def data_file(self, episode: int) -> str:
        """Return the path or URL of the parquet file that holds an episode's frames."""
        home = source_url(self.columns.root) or self.columns.root
        return f"{home}/{self._dataset_path('data_path', 'data', episode)}"

    def missing_videos(self, episodes: list[int]) -> dict[int, str]:
        """Return a message for each episode of which a camera's video is missing.

        Raises:
            DataError: The URL cannot be reached.
        """
        found: dict[str, bool] = {}
        wrong = {}
        for camera in filter(self.is_video, self.cameras):
            for episode in episodes:
                path = self._video_path(episode, camera)
                if path not in found:
                    local = self.columns.root / path
                    found[path] = path in self._remote_files if self.url else local.is_file()
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
                fields |= {"episode_chunk": chunk, "episode_index": number}
            else:
                for name in ("chunk_index", "file_index"):
                    fields[name] = row[f"{kind}/{name}"]
            return str(info[template].format(**fields))
        except (KeyError, AttributeError) as error:
            raise DataError(
                f"{self.columns.root}: meta does not define the {template} of episode {episode} "
                f"({error} is missing)"
            ) from error


def image_keys(columns: Columns) -> list[str]:
    """Return the cameras in a dataset's metadata."""
    features = columns.info["features"]
    return sorted(k for k, f in features.items() if f["dtype"] in ("image", "video"))
