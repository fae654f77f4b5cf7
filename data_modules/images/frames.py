"""Read camera images of LeRobot episodes, decoded once and cached as arrays on disk.

Seeking in videos is slow (43-77 frames per second and core at 224 px). So each episode is decoded
once, at the size that training uses, into one array per camera. Later runs memory-map it.
"""

import io
import logging
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.errors import shorten
from data_modules.images.cache import ArrayCache, ImageArray, Shape, WriteOutcome
from data_modules.images.camera_files import CameraFiles, Size
from data_modules.images.filling import fill_cache
from data_modules.images.mapped_files import MappedFiles
from data_modules.images.video import CHUNK, close_decoders, decode_video

_log = logging.getLogger(__name__)

AT_ONCE = 64  # images of an episode that are read together


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

    def episode(self, episode: int, camera: str) -> Iterator[Tensor]:
        """Yield all images of an episode in chunks, uint8 (N, 3, *size).

        Raises:
            DataError: The images cannot be decoded.
        """
        yield from self.frames(episode, camera, np.arange(self.columns.lengths_E[episode]))

    @cached_property
    def name(self) -> str:
        """Name that changes with the images: of the dataset, the size and the decoder."""
        files, size = self.files, self.size
        name = f"{files.columns.root.resolve().name}-{size[0]}x{size[1]}-{self.decoder}"
        if any(map(files.is_video, files.cameras)):  # ``video_times`` selects each frame's image
            name += "-by_rate" if files.columns.trust_fps else "-2"
        # Decoders convert a video's colours to RGB differently, so each has its own name.
        return f"{name}-{files.fingerprint()[:16]}"

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

    def __init__(self, files: CameraFiles, size: Size, decoder: str, cache: ArrayCache) -> None:
        super().__init__(files, size, decoder)
        self.cache = cache
        self.folder = cache.folder / self.name
        self._mapped = MappedFiles(cache)

    def read(self, episode: int, row: int, camera: str) -> ImageArray:
        """Read one image, uint8 (3, Y, X), from the cache if it is there and undamaged."""
        if (cached := self._mapped.get(self._locate, episode, camera)) is not None:
            image = cached.row(row)
            if image is not None:
                return image
            path = self.path(episode, camera)
            self._mapped.delete(path, episode, camera)
            _log.warning("%s: image %d is damaged; the episode is decoded again", path, row)
        return super().read(episode, row, camera)

    def episode(self, episode: int, camera: str) -> Iterator[Tensor]:
        """Yield all images of an episode in chunks, from the cache if they are there."""
        if self._mapped.get(self._locate, episode, camera) is None:
            yield from super().episode(episode, camera)
            return
        count = int(self.columns.lengths_E[episode])
        for first in range(0, count, AT_ONCE):
            rows = range(first, min(first + AT_ONCE, count))
            yield torch.from_numpy(np.stack([self.read(episode, row, camera) for row in rows]))

    def _locate(self, episode: int, camera: str) -> tuple[Path, Shape]:
        return self.path(episode, camera), self.shape(episode)

    def path(self, episode: int, camera: str) -> Path:
        """Return the cache's file of an episode."""
        return self.folder / camera / f"episode_{episode:06d}.npy"

    def shape(self, episode: int) -> Shape:
        """Return the shape of an episode's images."""
        return (int(self.columns.lengths_E[episode]), 3, *self.size)

    def fill(self, episode: int, camera: str, keep: Collection[Path], wait: bool) -> WriteOutcome:
        """Decode an episode into the cache, see ``ArrayCache.write``."""
        rows = np.arange(self.columns.lengths_E[episode])
        return self.cache.write(
            self.path(episode, camera),
            self.shape(episode),
            lambda: self.frames(episode, camera, rows),
            keep,
            wait,
        )


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
    def shape(self) -> Shape:
        """Shape of the episode's images."""
        return self.images.shape(self.episode)

    def write(self, keep: Collection[Path], wait: bool) -> WriteOutcome:
        """Decode the episode into the cache."""
        return self.images.fill(self.episode, self.camera, keep, wait)


def fill_image_cache(cache: ArrayCache, wanted: list[EpisodeToDecode]) -> None:
    """Decode the episodes that the cache lacks. Warn once if its limit is too low for all.

    Raises:
        DataError: An episode cannot be decoded or written.
    """
    shortage = fill_cache(cache, wanted, "decoding episodes")
    if shortage is not None and cache.limit is not None:
        rank_zero_warn(
            f"the decoded images of this run take {shortage.bytes / 1e9:.3g} GB and cache_gb is "
            f"{cache.limit / 1e9:.3g}: {shortage.lacking} of its {shortage.wanted} episodes "
            "(counted per camera) are decoded at each access"
        )


def resize(images: Tensor, size: Size) -> Tensor:
    """Resize images, uint8 (N, 3, Y, X), to (N, 3, *size) with antialiasing."""
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, list(size), antialias=True)
    return resized
