"""Read camera images of LeRobot episodes, decoded once and cached as arrays on disk.

Seeking in videos is slow (43-77 frames per second and core at 224 px). So each episode is decoded
once, at the size that training uses, into one array per camera. Later runs memory-map it.
"""

import io
import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.errors import shorten
from data_modules.images.cache import (
    CachedImages,
    ImageArray,
    ImageCache,
    Shape,
    WriteOutcome,
    file_size,
)
from data_modules.images.camera_files import CameraFiles, Size
from data_modules.images.video import CHUNK, close_decoders, decode_video

_log = logging.getLogger(__name__)

MAX_MAPPED_FILES = 8192
"""Most files that a process maps at once. Systems allow some 65,000 maps."""
_readers: "WeakSet[CachedFrameImages]" = WeakSet()
"""All readers of this process, since its mapped files share one limit of file descriptors."""


class FrameImages:
    """Images of one dataset by episode and camera, decoded at each access.

    Args:
        files: Image files of the dataset.
        size: Rows and columns of the returned images.
        decoder: One of ``video.DECODERS``.
    """

    def __init__(self, files: CameraFiles, size: Size, decoder: str) -> None:
        self.files = files
        self.columns = files.columns
        self.cameras = files.cameras
        self.size = size
        self.decoder = decoder
        close_decoders()

    def read(self, episode: int, row: int, camera: str) -> ImageArray:
        """Read one image, uint8 (3, Y, X). ``row`` counts from the episode's first frame."""
        (images,) = self.frames(episode, camera, np.array([row]))
        image: ImageArray = images[0].numpy()
        return image

    def frames(self, episode: int, camera: str, rows: IntArray) -> Iterator[Tensor]:
        """Yield the images at ascending ``rows`` in chunks, uint8 (N, 3, *size).

        Raises:
            DataError: The images cannot be decoded.
        """
        if self.files.is_video(camera):
            source = self.files.video(episode, camera).source
            times = self.files.video_times(episode, camera, rows)
            # Up to half a frame, so that the nearest frame is unambiguous.
            tolerance = 0.5 / float(self.columns.info["fps"])
            chunks = decode_video(source, times, tolerance, self.decoder)
        else:
            source = self.files.data_file(episode)
            chunks = self._decode_data_file(source, episode, camera, rows)
        try:
            for images in chunks:
                yield images if tuple(images.shape[-2:]) == self.size else resize(images, self.size)
        except Exception as error:
            raise DataError(
                f"{source}: frames {rows[0]} to {rows[-1]} of episode {episode} cannot be decoded "
                f"({shorten(error)})"
            ) from error

    def each(self, episode: int, camera: str, rows: IntArray) -> Iterator[ImageArray]:
        """Yield the images at ascending ``rows`` one by one, uint8 (3, Y, X), in one pass.

        Raises:
            DataError: The images cannot be decoded.
        """
        for images in self.frames(episode, camera, rows):
            yield from images.numpy()

    def _decode_data_file(
        self, path: str, episode: int, camera: str, rows: IntArray
    ) -> Iterator[Tensor]:
        """Decode images that are stored in a parquet file, or in files that it names."""
        import fsspec
        import pyarrow.parquet as pq
        from PIL import Image

        chosen = [("episode_index", "=", self.columns.episodes[episode]["episode_index"])]
        with fsspec.open(path, "rb") as file:
            table = pq.read_table(file, columns=[camera], filters=chosen).take(rows)
        for batch in table.to_batches(max_chunksize=CHUNK):
            images = []
            for cell in batch[camera].to_pylist():
                source = (
                    io.BytesIO(cell["bytes"]) if cell["bytes"] else self.columns.root / cell["path"]
                )
                images.append(torch.from_numpy(np.array(Image.open(source).convert("RGB"))))
            yield torch.stack(images).permute(0, 3, 1, 2)


class CachedFrameImages(FrameImages):
    """Images of one dataset, read from a cache of decoded episodes if possible.

    Args:
        files: Image files of the dataset.
        size: Rows and columns of the returned images.
        decoder: One of ``video.DECODERS``.
        cache: Cache of decoded episodes.
    """

    def __init__(self, files: CameraFiles, size: Size, decoder: str, cache: ImageCache) -> None:
        super().__init__(files, size, decoder)
        self.cache = cache
        name = f"{files.columns.root.resolve().name}-{size[0]}x{size[1]}-{decoder}"
        if any(map(files.is_video, files.cameras)):  # ``video_times`` selects each frame's image
            name += "-by_rate" if files.columns.trust_fps else "-2"
        # Decoders convert a video's colours to RGB differently, so each has its own folder.
        self.folder = cache.folder / f"{name}-{files.fingerprint()[:16]}"
        self._open: dict[tuple[int, str], CachedImages | None] = {}
        self._max_mapped = max_mapped_files()
        _readers.add(self)

    def read(self, episode: int, row: int, camera: str) -> ImageArray:
        """Read one image, uint8 (3, Y, X), from the cache if it is there and undamaged."""
        if (cached := self._cached(episode, camera)) is not None:
            image = cached.image(row)
            if image is not None:
                return image
            path = self.path(episode, camera)
            _log.warning("%s: image %d is damaged; the episode is decoded again", path, row)
            path.unlink(missing_ok=True)
            self._open[episode, camera] = None
        return super().read(episode, row, camera)

    def path(self, episode: int, camera: str) -> Path:
        """Return the cache's file of an episode."""
        return self.folder / camera / f"episode_{episode:06d}.npy"

    def shape(self, episode: int) -> Shape:
        """Return the shape of an episode's images."""
        return (int(self.columns.lengths_E[episode]), 3, *self.size)

    def fill(self, episode: int, camera: str, keep: Collection[Path], wait: bool) -> WriteOutcome:
        """Decode an episode into the cache, see ``ImageCache.write``."""
        rows = np.arange(self.columns.lengths_E[episode])
        return self.cache.write(
            self.path(episode, camera),
            self.shape(episode),
            lambda: self.frames(episode, camera, rows),
            keep,
            wait,
        )

    def _cached(self, episode: int, camera: str) -> CachedImages | None:
        key = (episode, camera)
        if key not in self._open:
            if sum(len(reader._open) for reader in _readers) >= self._max_mapped:
                fullest = max(_readers, key=lambda reader: len(reader._open))
                del fullest._open[next(iter(fullest._open))]
            self._open[key] = self.cache.open(self.path(*key), self.shape(episode))
        return self._open[key]

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled with its content. Workers map the files themselves.
        return {**self.__dict__, "_open": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _readers.add(self)


def max_mapped_files() -> int:
    """Raise the limit of open files, and return how many this process may map.

    Half of the limit stays free for other files. On many systems a process may open 1,024 files
    unless it raises the limit.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MAX_MAPPED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (
        2 * MAX_MAPPED_FILES if hard == resource.RLIM_INFINITY else min(2 * MAX_MAPPED_FILES, hard)
    )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return MAX_MAPPED_FILES if soft == resource.RLIM_INFINITY else min(MAX_MAPPED_FILES, soft // 2)


class EpisodeToDecode(NamedTuple):
    """One camera's images of an episode that a run uses."""

    images: CachedFrameImages
    episode: int
    camera: str

    @property
    def path(self) -> Path:
        """Cache file of the episode."""
        return self.images.path(self.episode, self.camera)

    @property
    def bytes(self) -> int:
        """Size of the cache file [bytes]."""
        return file_size(self.images.shape(self.episode))


def fill_cache(cache: ImageCache, wanted: list[EpisodeToDecode]) -> None:
    """Decode the episodes that the cache lacks. Warn once if its limit is too low for all.

    Raises:
        DataError: An episode cannot be decoded or written.
    """
    by_path = {item.path: item for item in wanted}
    cache.clean_up(by_path.keys())
    missing = {
        path: item
        for path, item in by_path.items()
        if not cache.has(path, item.images.shape(item.episode))
    }
    room = cache.available_bytes(by_path.keys() - missing.keys())
    fitting: list[EpisodeToDecode] = []
    lacking: list[EpisodeToDecode] = []
    for item in missing.values():
        if item.bytes <= room:
            fitting.append(item)
            room -= item.bytes
        else:
            lacking.append(item)
    lacking += _decode(fitting, by_path.keys())
    if lacking and cache.limit is not None:
        needed = sum(item.bytes for item in by_path.values())
        rank_zero_warn(
            f"the decoded images of this run take {needed / 1e9:.3g} GB and cache_gb is "
            f"{cache.limit / 1e9:.3g}: {len(lacking)} of its {len(by_path)} episodes (counted per "
            "camera) are decoded at each access"
        )


def _decode(items: list[EpisodeToDecode], keep: Collection[Path]) -> list[EpisodeToDecode]:
    """Fill the cache, and return the items for which other processes left no room."""
    if not items:
        return []
    from tqdm import tqdm  # type: ignore[import-untyped]  # has no types

    lacking = []
    with tqdm(total=len(items), desc="decoding episodes", unit="episode") as bar:
        for wait in (False, True):  # first the items that no other process is decoding
            busy = []
            for item in items:
                outcome = item.images.fill(item.episode, item.camera, keep, wait)
                if outcome is WriteOutcome.BUSY:
                    busy.append(item)
                    continue
                bar.update()
                if outcome is WriteOutcome.NO_ROOM:
                    lacking.append(item)
            items = busy
    return lacking


def resize(images: Tensor, size: Size) -> Tensor:
    """Resize images, uint8 (N, 3, Y, X), to (N, 3, *size) with antialiasing."""
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, list(size), antialias=True)
    return resized
