"""Camera images of LeRobot episodes, decoded once and kept as arrays on disk.

A video is slow to seek (43-77 frames a second and core at 224 px), so each episode is decoded
once, at the size that training uses, into one array a camera that later runs map into memory.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from actionprior.data import DataError
from actionprior.permutation import IntArray
from data_modules.camera_files import CameraFiles, Size
from data_modules.video_decoding import CHUNK, decode_video

ImageArray = npt.NDArray[np.uint8]


class FrameImages:
    """Images of one dataset, by episode and camera.

    Args:
        files: the dataset's image files.
        size: rows and columns of the images returned.
        cache_dir: where decoded arrays are kept; ``None`` decodes each time.
        decoder: of ``video_decoding.DECODERS``.
    """

    def __init__(
        self,
        files: CameraFiles,
        size: Size,
        cache_dir: Path | None,
        decoder: str,
    ) -> None:
        self.files = files
        self.columns = files.columns
        self.cameras = files.cameras
        self.size = size
        self.decoder = decoder
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
            first = 0
            for images in self._frames(episode, camera, np.arange(length)):
                array[first : first + len(images)] = images.numpy()
                first += len(images)
            array.flush()
            del array
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, episode: int, row: int, camera: str) -> ImageArray:
        """One image, uint8 (3, Y, X); ``row`` counts from the episode's first frame."""
        if not self.cached:
            return self._decode(episode, camera, row)
        key = (episode, camera)
        if key not in self._maps:
            self._maps[key] = np.load(self._path(*key), mmap_mode="r")
        image: ImageArray = self._maps[key][row]
        return image

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as its content; workers map the files again.
        return {**self.__dict__, "_maps": {}}

    # ---- decoding -----------------------------------------------------------------------------

    def _decode(self, episode: int, camera: str, row: int) -> ImageArray:
        (images,) = self._frames(episode, camera, np.array([row]))
        image: ImageArray = images[0].numpy()
        return image

    def _frames(self, episode: int, camera: str, rows: IntArray) -> Iterator[Tensor]:
        """Images at ascending ``rows``, in chunks: uint8 (N, 3, *size).

        Raises:
            DataError: they cannot be decoded.
        """
        if self.files.is_video(camera):
            source, start = self.files.video(episode, camera)
            first = int(self.columns.starts_E[episode])
            times = (start + self.columns.timestamp_N[first + rows]).tolist()
            # As far as half a frame: the nearest one is then unambiguous.
            tolerance = 0.5 / float(self.columns.info["fps"])
            chunks = decode_video(source, times, tolerance, self.decoder)
        else:
            source = str(self.files.data_file(episode))
            chunks = self._stored(source, episode, camera, rows)
        try:
            for images in chunks:
                yield images if tuple(images.shape[-2:]) == self.size else resize(images, self.size)
        except Exception as error:
            told = str(error).partition("\n")[0]
            raise DataError(
                f"{source}: frames {rows[0]} to {rows[-1]} of episode {episode} cannot be decoded "
                f"({told})"
            ) from error

    def _stored(self, path: str, episode: int, camera: str, rows: IntArray) -> Iterator[Tensor]:
        import pyarrow.parquet as pq
        from PIL import Image

        number = self.columns.episodes[episode]["episode_index"]
        table = pq.read_table(
            path, columns=[camera], filters=[("episode_index", "=", number)]
        ).take(rows)
        for batch in table.to_batches(max_chunksize=CHUNK):
            images = []
            for cell in batch[camera].to_pylist():
                source = (
                    io.BytesIO(cell["bytes"]) if cell["bytes"] else self.columns.root / cell["path"]
                )
                images.append(torch.from_numpy(np.array(Image.open(source).convert("RGB"))))
            yield torch.stack(images).permute(0, 3, 1, 2)

    # ---- where things are -----------------------------------------------------------------------

    def _path(self, episode: int, camera: str) -> Path:
        return self.folder / camera / f"episode_{episode:06d}.npy"

    def _cache_name(self) -> str:
        """Changes with the dataset's files (names, sizes, times) and the image size."""
        name = self.columns.root.resolve().name
        size = f"{self.size[0]}x{self.size[1]}"
        # Decoders differ in how they turn a video's colours into RGB: one cache holds one's only.
        return f"{name}-{size}-{self.decoder}-{self.files.fingerprint()[:16]}"


def resize(images: Tensor, size: Size) -> Tensor:
    """uint8 (N, 3, Y, X) → (N, 3, *size), antialiased."""
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, list(size), antialias=True)
    return resized
