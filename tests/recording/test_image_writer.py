"""Images are written without loss, and one that cannot be written is an error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actionprior.recording.image_writer import ImageWriter


def test_images_are_written_without_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 6, 8, 3), dtype=np.uint8)
    writer = ImageWriter()
    for number, image in enumerate(images):
        writer.save_image(image, tmp_path / f"{number}.png", 6)
    writer.wait_until_done()
    read = [np.asarray(Image.open(tmp_path / f"{n}.png")) for n in range(len(images))]
    np.testing.assert_array_equal(read, images)
    writer.stop()


def test_an_image_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    writer, image = ImageWriter(), np.zeros((2, 2, 3), np.uint8)
    writer.save_image(image, tmp_path / "missing" / "0.png")
    with pytest.raises(FileNotFoundError, match=r"missing/0\.png"):
        writer.wait_until_done()
    writer.wait_until_done()  # reported once
    writer.save_image(image, tmp_path / "missing" / "1.png")

    def save_more() -> None:
        for number in range(100):
            writer.save_image(image, tmp_path / f"{number}.png")

    with pytest.raises(FileNotFoundError, match=r"missing/1\.png"):
        save_more()
    writer.stop()
