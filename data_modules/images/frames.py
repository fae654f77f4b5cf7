"""Read camera images of LeRobot episodes, decoded once and cached as arrays on disk.

Seeking in videos is slow (43-77 frames per second and core at 224 px). So each episode is decoded
once, at the size that training uses, into one array per camera. Later runs memory-map it.
"""

import io
import logging
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from actionprior.data import DataError
from actionprior.data.pseudo_random import IntArray
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import shorten
from actionprior.files.names import file_name
from actionprior.files.pictures import PICTURES
from data_modules.images.cache import ArrayCache, ImageArray, Shape, WriteOutcome
from data_modules.images.camera_files import CameraFiles
from data_modules.images.filling import fill_cache
from data_modules.images.mapped_files import MappedFiles
from data_modules.images.pixels import to_colour
from data_modules.images.video import CHUNK, close_decoders, decode_video
from data_modules.lerobot.named_files import file_below
from data_modules.lerobot.remote import is_url

_log = logging.getLogger(__name__)

AT_ONCE = 64  # images of an episode that are read together


class FrameImages:
    """Images of one dataset by episode and camera, decoded at each access.

    Args:
        files: Image files of the dataset.
        image_shape: Rows and columns of the returned images.
        decoder: One of ``video.DECODERS``.
    """

    def __init__(self, files: CameraFiles, image_shape: ImageShape, decoder: str) -> None:
        self.files = files
        self.columns = files.columns
        self.cameras = files.cameras
        self.image_shape = image_shape
        self.decoder = decoder
        close_decoders()

    def read(self, episode: int, row: int, camera: str) -> ImageArray:
        """Read one image, uint8 (3, Y, X). ``row`` counts from the episode's first frame."""
        (images,) = self.frames(episode, camera, np.array([row]))
        image: ImageArray = images[0].numpy()
        return image

    def frames(self, episode: int, camera: str, rows: IntArray) -> Iterator[Tensor]:
        """Yield the images at ascending ``rows`` in chunks, uint8 (N, 3, rows, columns).

        Raises:
            DataError: The images cannot be decoded.
        """
        video = self.files.is_video(camera)
        source = (
            self.files.video(episode, camera).source if video else self.files.data_file(episode)
        )
        try:
            if video:
                chunks = self._decode_video(source, episode, camera, rows)
            else:
                chunks = self._decode_data_file(source, episode, camera, rows)
            for images in chunks:
                yield self.image_shape.apply(images)
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
        """Yield all images of an episode in chunks, uint8 (N, 3, rows, columns).

        Raises:
            DataError: The images cannot be decoded.
        """
        yield from self.frames(episode, camera, np.arange(self.columns.lengths_E[episode]))

    @cached_property
    def name(self) -> str:
        """Name that changes with the images: of the dataset, the size and the decoder."""
        files, shape = self.files, self.image_shape
        name = f"{files.columns.root.resolve().name}-{shape.rows}x{shape.columns}-{self.decoder}"
        name += "" if shape.fit == "stretch" else f"-{shape.fit}"
        if any(map(files.is_video, files.cameras)):  # ``video_times`` selects each frame's image
            name += "-by_rate" if files.columns.trust_fps else "-2"
        for camera in filter(files.cameras.__contains__, sorted(files.depth_ranges)):
            near, far = files.depth_ranges[camera]
            name += f"-depth{near:g}-{far:g}"
        # Decoders convert a video's colours to RGB differently, so each has its own name.
        return f"{name}-{files.fingerprint()[:16]}"

    def _decode_video(
        self, source: str, episode: int, camera: str, rows: IntArray
    ) -> Iterator[Tensor]:
        times = self.files.video_times(episode, camera, rows)
        # Up to half a frame, so that the nearest frame is unambiguous.
        tolerance = 0.5 / float(self.columns.info["fps"])
        yield from decode_video(source, times, tolerance, self.decoder)

    def _decode_data_file(
        self, path: str, episode: int, camera: str, rows: IntArray
    ) -> Iterator[Tensor]:
        """Decode images that are stored in a parquet file, or in files that it names."""
        import pyarrow.parquet as pq

        chosen = [("episode_index", "=", self.columns.episodes[episode]["episode_index"])]
        with _open_file(path) as file:
            table = pq.read_table(file, columns=[camera], filters=chosen).take(rows)
        for batch in table.to_batches(max_chunksize=CHUNK):
            images = [self._picture(cell, camera) for cell in batch[camera].to_pylist()]
            yield torch.stack(images).permute(0, 3, 1, 2)

    def _picture(self, cell: Any, camera: str) -> Tensor:  # noqa: ANN401  a value of the dataset
        """Decode an image of a data file, uint8 (Y, X, 3)."""
        from PIL import Image

        if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
            raise ValueError(f"a cell of {camera!r} holds neither an image nor the name of one")
        # Other formats of Pillow start external programs.
        content = cell.get("bytes")
        source = io.BytesIO(content) if content else file_below(self.columns.root, cell["path"])
        with Image.open(source, formats=PICTURES) as image:
            expected, found = self.files.size(camera), (image.height, image.width)
            if found != expected:  # known before the image is decoded, which may fill memory
                raise ValueError(
                    f"an image of {camera!r} has {found[0]} rows and {found[1]} columns, "
                    f"meta/info.json says {expected[0]} and {expected[1]}"
                )
            return torch.from_numpy(to_colour(image, self.files.depth_range(camera)))


class CachedFrameImages(FrameImages):
    """Images of one dataset, read from a cache of decoded episodes if possible.

    Args:
        files: Image files of the dataset.
        image_shape: Rows and columns of the returned images.
        decoder: One of ``video.DECODERS``.
        cache: Cache of decoded episodes.
    """

    def __init__(
        self, files: CameraFiles, image_shape: ImageShape, decoder: str, cache: ArrayCache
    ) -> None:
        super().__init__(files, image_shape, decoder)
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
        return self.folder / file_name(camera) / f"episode_{episode:06d}.npy"

    def shape(self, episode: int) -> Shape:
        """Return the shape of an episode's images."""
        return (int(self.columns.lengths_E[episode]), 3, *self.image_shape.size)

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


def _open_file(place: str) -> AbstractContextManager[Any]:
    """Open a local file or a URL for reading."""
    if not is_url(place):
        return Path(place).open("rb")
    import fsspec

    opened: AbstractContextManager[Any] = fsspec.open(place, "rb")
    return opened
