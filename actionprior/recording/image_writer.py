"""Write the images of a recording while the next ones are made."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_AHEAD = 64
"""Images that may wait to be written."""
_COMPRESSION = 1
"""Level of zlib. LeRobot's 6 takes three times as long for files that are 6 % smaller."""


class ImageWriter:
    """Write PNG images in a thread.

    It takes the place of LeRobot's ``AsyncImageWriter`` in a dataset's ``writer``, which calls the
    same methods. LeRobot's logs an image that it cannot write, and continues without it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "images")
        self._waiting: deque[Future[None]] = deque()

    def save_image(self, image: NDArray[np.uint8], fpath: Path, compress_level: int = 1) -> None:
        """Write an image (Y, X, 3) soon; the compression is always the quick one.

        Raises:
            OSError: An earlier image could not be written.
        """
        if len(self._waiting) >= _AHEAD:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(_write, image, fpath))

    def wait_until_done(self) -> None:
        """Wait until all images are written.

        Raises:
            OSError: An image could not be written.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def stop(self) -> None:
        """Write what waits, and end the thread."""
        self._thread.shutdown()


def _write(image: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(image).save(path, compress_level=_COMPRESSION)
