"""Images of others are 8-bit colours in four formats, of bounded size."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actionprior.errors import UserError
from actionprior.files import pictures
from actionprior.files.pictures import PICTURES, read_picture


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (5, 4)) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, 7).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", PICTURES)
def test_four_formats_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encoded(kind))
    for source in (tmp_path / "a", encoded(kind)):
        image = read_picture(source, "x")
        assert (image.shape, image.dtype) == ((4, 5, 3), np.uint8)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "PPM", "PDF"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match="x cannot be read as an image"):
        read_picture(encoded(kind), "x")


def test_depth_large_and_damaged_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("I;16", "I"):
        with pytest.raises(UserError, match="x has more than 8 bits per value"):
            read_picture(encoded("PNG", mode), "x")
    with pytest.raises(UserError, match="x cannot be read as an image"):
        read_picture(encoded("PNG")[:-30], "x")
    text = b"zTXta\0\0" + zlib.compress(bytes(1 << 27))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    with pytest.raises(UserError, match="x cannot be read as an image"):
        read_picture(encoded("PNG")[:33] + chunk + encoded("PNG")[33:], "x")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 19)
    with pytest.raises(UserError, match="x has 5 x 4 pixels, too many"):
        read_picture(encoded("PNG"), "x")
