"""Where the images of a LeRobot dataset are, formats v3.0 and v2.1.

v3.0 keeps many episodes in one video and says where each begins; v2.1 keeps one video an episode.
Images of either may also lie in the data files, in which case no video is needed. Videos may be
left where they are published and be read from there, through fsspec.
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
    """The path or URL that holds an episode's video, and where the episode is in it."""

    source: str
    start: float  # [s]
    seconds: float | None  # that it takes there; None: it is not told


class CameraFiles:
    """The image and video files of one dataset.

    Args:
        columns: the dataset.
        cameras: the image keys that are used.
        url: of a folder, as fsspec reads it, that holds the dataset's ``videos``; by default they
            are in the dataset's own.

    Raises:
        DataError: the dataset has no such camera.
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
        """Whether a camera's images are in videos; otherwise they are in the data files."""
        return bool(self.columns.info["features"][camera]["dtype"] == "video")

    def size(self, camera: str) -> Size:
        """Rows and columns of a camera's images as recorded."""
        feature = self.columns.info["features"][camera]
        shape = tuple(int(n) for n in feature["shape"])
        names = feature.get("names")
        colours = (1, 3, 4)
        channels_first = (bool(names) and str(names[0]).startswith("channel")) or (
            shape[0] in colours and shape[-1] not in colours
        )
        return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])

    def video(self, episode: int, camera: str) -> VideoPart:
        """Where an episode's video is."""
        row = self.columns.episodes[episode]
        source = f"{self._home}/{self._video_place(episode, camera)}"
        if self._old:
            return VideoPart(source, 0.0, None)
        start = float(row[f"videos/{camera}/from_timestamp"])
        stop = row.get(f"videos/{camera}/to_timestamp")
        return VideoPart(source, start, None if stop is None else float(stop) - start)

    def video_times(self, episode: int, camera: str, rows: IntArray) -> list[float]:
        """When the images of an episode's rows are shown in its video [s].

        By the timestamps; but 1 / fps apart where the dataset is said to be (``trust_fps``), or
        where the episode takes as long in the video as its number of frames does and not as long
        as its timestamps: such a video has been written frame by frame.
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
        """The path or URL of the parquet file that an episode's frames are in."""
        home = source_url(self.columns.root) or self.columns.root
        return f"{home}/{self._place('data_path', 'data', episode)}"

    def missing_videos(self, episodes: list[int]) -> dict[int, str]:
        """What is wrong, by episode, where the video of one of the cameras is not there.

        Raises:
            DataError: the URL cannot be reached.
        """
        found: dict[str, bool] = {}
        wrong = {}
        for camera in filter(self.is_video, self.cameras):
            for episode in episodes:
                place = self._video_place(episode, camera)
                if place not in found:
                    local = self.columns.root / place
                    found[place] = place in self._listing if self.url else local.is_file()
                if not found[place]:
                    wrong[episode] = (
                        f"{self._home}: video file {place} of camera {camera!r}, "
                        f"episode {episode}, is missing"
                    )
        return wrong

    def episodes_without_video(self) -> list[int]:
        """Episodes that lack the video of one of the cameras, or of which no place is told."""
        episodes = list(range(len(self.columns.lengths_E)))
        try:
            return sorted(self.missing_videos(episodes))
        except DataError:
            return episodes

    def fingerprint(self) -> str:
        """Changes with the dataset's files."""
        if self.url is None:
            return fingerprint(self.columns.root, ("meta", "data", "videos"))
        told = [self.url, fingerprint(self.columns.root), *sorted(self._listing.items())]
        return digest(repr(told))

    # ---- parts --------------------------------------------------------------------------------

    @property
    def _home(self) -> str:
        return self.url or str(self.columns.root)

    @cached_property
    def _listing(self) -> dict[str, str]:
        """The videos at the URL: for each path in the dataset, what tells its versions apart."""
        assert self.url is not None
        return list_remote_files(self.url, ("videos",))

    def _video_place(self, episode: int, camera: str) -> str:
        return self._place("video_path", f"videos/{camera}", episode, video_key=camera)

    def _place(self, template: str, kind: str, episode: int, **more: str) -> str:
        """A path inside the dataset, from the template in ``meta/info.json``."""
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
                f"{self.columns.root}: meta does not tell the {template} of episode {episode} "
                f"({error} is missing)"
            ) from error


def image_keys(columns: Columns) -> list[str]:
    """The cameras that a dataset's metadata name."""
    features = columns.info["features"]
    return sorted(k for k, f in features.items() if f["dtype"] in ("image", "video"))
