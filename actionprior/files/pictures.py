"""Images and videos in files from others: only formats that open no other file or program."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionprior.errors import UserError, shorten

PICTURES = ("PNG", "JPEG", "WEBP", "TIFF")
"""Formats that are opened, by Pillow's names. Other formats of Pillow start external programs."""
ONLY_VIDEOS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"}
"""Options of FFmpeg. Its other formats are lists of files, also on other machines, to open."""
MOST_PIXELS = 1 << 26
"""Pixels above which an image is not decoded."""


def read_picture(source: Path | bytes, name: str) -> NDArray[np.uint8]:
    """Decode an 8-bit image to RGB, uint8 (Y, X, 3).

    Args:
        source: File, or its content.
        name: Name of the image in messages.

    Raises:
        UserError: It is no image of :data:`PICTURES`, is damaged or too large, or has more than
            8 bits per value, as depth has.
    """
    from PIL import Image

    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(opened, formats=PICTURES) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"{name} has {image.width} x {image.height} pixels, too many")
            if image.mode[0] in "IF":
                raise UserError(f"{name} has more than 8 bits per value, expected colours")
            return np.array(image.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{name} cannot be read as an image ({shorten(error)})") from error
