"""Camera images of LeRobot episodes, decoded by lerobot, kept as arrays on disk.

A video is slow to seek (43-77 frames a second and core at 224 px), so each episode is decoded
once, at the size that training uses, into one array a camera that later runs map into memory.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from actionprior.data import DataError
from data_modules.lerobot_columns import Columns
from data_modules.lerobot_source import fingerprint

Size = tuple[int, int]
ImageArray = npt.NDArray[np.uint8]
DECODE_CHUNK = 64
"""Frames decoded at once; bounds memory at large camera sizes."""


class FrameImages:
    """Images of one dataset, by episode and camera.

    Args:
        columns: the dataset.
        cameras: its image keys.
        size: rows and columns of the images returned.
        cache_dir: where decoded arrays are kept; ``None`` decodes each time.
        video_backend: lerobot's name of the decoder.

    Raises:
        DataError: the dataset lacks a camera or one of its video files.
    """

    def __init__(
        self,
        columns: Columns,
        cameras: list[str],
        size: Size,
        cache_dir: Path | None,
        video_backend: str,
    ) -> None:
        check_cameras(columns, cameras)
        self.columns = columns
        self.cameras = cameras
        self.size = size
        self.video_backend = video_backend
        self.cached = cache_dir is not None
        self.folder = (cache_dir or Path()) / self._cache_name()
        self._maps: dict[tuple[int, str], ImageArray] = {}

    def missing(self, episodes: list[int]) -> list[tuple[int, str]]:
        """Pairs of episode and camera that the cache lacks."""
        if not self.cached:
            return []
        return [(e, c) for e in episodes for c in self.cameras if not self._path(e, c).exists()]

    def fill(self, episode: int, camera: str) -> None:
        """Decode one episode into the cache; a killed process leaves nothing that looks whole."""
        path = self._path(episode, camera)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        length = int(self.columns.lengths_E[episode])
        try:
            array: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                temporary, mode="w+", dtype=np.uint8, shape=(length, 3, *self.size)
            )
            for first in range(0, length, DECODE_CHUNK):
                rows = np.arange(first, min(first + DECODE_CHUNK, length))
                array[rows] = self._decode(episode, camera, rows)
            array.flush()
            del array
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, episode: int, row: int, camera: str) -> ImageArray:
        """One image, uint8 (3, Y, X); ``row`` counts from the episode's first frame."""
        if not self.cached:
            decoded: ImageArray = self._decode(episode, camera, np.array([row]))[0].numpy()
            return decoded
        key = (episode, camera)
        if key not in self._maps:
            self._maps[key] = np.load(self._path(*key), mmap_mode="r")
        image: ImageArray = self._maps[key][row]
        return image

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as its content; workers map the files again.
        return {**self.__dict__, "_maps": {}}

    # ---- decoding -----------------------------------------------------------------------------

    def _decode(self, episode: int, camera: str, rows: npt.NDArray[np.int64]) -> Tensor:
        kind = self.columns.info["features"][camera]["dtype"]
        decode = self._decode_video if kind == "video" else self._decode_stored
        images = decode(episode, camera, rows)
        return images if tuple(images.shape[-2:]) == self.size else resize(images, self.size)

    def _decode_video(self, episode: int, camera: str, rows: npt.NDArray[np.int64]) -> Tensor:
        from lerobot.datasets.video_utils import decode_video_frames

        start = float(self.columns.episodes[episode][f"videos/{camera}/from_timestamp"])
        first = int(self.columns.starts_E[episode])
        times = [start + float(self.columns.timestamp_N[first + row]) for row in rows]
        path = video_path(self.columns, episode, camera)
        # As far as half a frame: the nearest one is then unambiguous.
        tolerance = 0.5 / float(self.columns.info["fps"])
        try:
            frames: Tensor = decode_video_frames(
                path, times, tolerance, self.video_backend, return_uint8=True
            )
        except Exception as error:
            raise DataError(
                f"{path}: frames {rows[0]} to {rows[-1]} of episode {episode} cannot be decoded "
                f"({error})"
            ) from error
        return frames

    def _decode_stored(self, episode: int, camera: str, rows: npt.NDArray[np.int64]) -> Tensor:
        import pyarrow.parquet as pq
        from PIL import Image

        row = self.columns.episodes[episode]
        path = self.columns.root / self.columns.info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        cells = pq.read_table(
            path, columns=[camera], filters=[("episode_index", "=", row["episode_index"])]
        )[camera].take(rows)
        images = []
        for cell in cells.to_pylist():
            source = (
                io.BytesIO(cell["bytes"]) if cell["bytes"] else self.columns.root / cell["path"]
            )
            images.append(torch.from_numpy(np.array(Image.open(source).convert("RGB"))))
        return torch.stack(images).permute(0, 3, 1, 2)

    # ---- where things are -----------------------------------------------------------------------

    def _path(self, episode: int, camera: str) -> Path:
        return self.folder / camera / f"episode_{episode:06d}.npy"

    def _cache_name(self) -> str:
        """Changes with the dataset's files (names, sizes, times) and the image size."""
        root = self.columns.root.resolve()
        digest = fingerprint(root, ("meta", "data", "videos"))
        return f"{root.name}-{self.size[0]}x{self.size[1]}-{digest[:16]}"


def check_cameras(columns: Columns, cameras: list[str]) -> None:
    """Refuse cameras that the dataset does not have.

    Raises:
        DataError: names the camera, or the first missing video file.
    """
    features = columns.info["features"]
    known = sorted(k for k, f in features.items() if f["dtype"] in ("image", "video"))
    for camera in cameras:
        if camera not in known:
            raise DataError(f"{columns.root}: has no camera {camera!r}; it has {known}")
        if features[camera]["dtype"] == "video":
            for episode in range(len(columns.episodes)):
                if not (path := video_path(columns, episode, camera)).is_file():
                    raise DataError(
                        f"{columns.root}: video file {path.relative_to(columns.root)} "
                        f"of camera {camera!r} is missing"
                    )


def camera_size(columns: Columns, camera: str) -> Size:
    """Rows and columns of a camera's images as recorded."""
    feature = columns.info["features"][camera]
    shape = tuple(int(n) for n in feature["shape"])
    channels_first = bool(feature.get("names")) and str(feature["names"][0]).startswith("channel")
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def video_path(columns: Columns, episode: int, camera: str) -> Path:
    """The file that holds an episode's video."""
    row = columns.episodes[episode]
    place: str = columns.info["video_path"].format(
        video_key=camera,
        chunk_index=row[f"videos/{camera}/chunk_index"],
        file_index=row[f"videos/{camera}/file_index"],
    )
    return columns.root / place


def resize(images: Tensor, size: Size) -> Tensor:
    """uint8 (N, 3, Y, X) → (N, 3, *size), antialiased."""
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, list(size), antialias=True)
    return resized
