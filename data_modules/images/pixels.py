"""Bring recorded pixels to 8-bit colour, or refuse what would lose its meaning on the way.

Depth maps and other images of more than 8 bits must not be converted as colours: everything above
255 would become white.
"""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_modules.images.cache import ImageArray

WIDE_MODES = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits per value."""
MM_PER_M = 1000.0
CHANNELS = (1, 3, 4)


class DepthRange(NamedTuple):
    """Depths that are shown as black and as white; others are clipped.

    Attributes:
        nearest: Depth that becomes 0 [m].
        farthest: Depth that becomes 255 [m].
        unit: Unit of the recorded values, ``m`` or ``mm``; empty: mm for integers, else m.
    """

    nearest: float
    farthest: float
    unit: str = ""


def channels(feature: dict[str, Any]) -> int:
    """Return the number of channels of a camera in ``meta/info.json``."""
    shape = tuple(int(n) for n in feature["shape"])
    if len(shape) < 3:
        return 1
    return shape[0] if channels_first(feature) else shape[-1]


def channels_first(feature: dict[str, Any]) -> bool:
    """Return whether a camera's shape in ``meta/info.json`` begins with the channels."""
    shape = tuple(int(n) for n in feature["shape"])
    names = feature.get("names")
    first = next(iter(names), "") if isinstance(names, list | tuple | dict) else ""
    return str(first).startswith("channel") or (shape[0] in CHANNELS and shape[-1] not in CHANNELS)


def depth_unit(feature: dict[str, Any]) -> str:
    """Return the recorded unit of a depth camera, empty if the dataset does not say it."""
    unit = _facts(feature).get("depth_unit")
    return str(unit) if unit in ("m", "mm") else ""


def why_no_colour(feature: dict[str, Any]) -> str:
    """Say why a camera of ``meta/info.json`` has no colour images; empty if it may have."""
    info = _facts(feature)
    if info.get("is_depth_map") or info.get("video.is_depth_map"):
        return "depth maps"
    pixels = str(info.get("video.pix_fmt", ""))
    if pixels.startswith("gray"):
        return f"video in {pixels}"
    count = channels(feature)
    return "" if count in (3, 4) else f"images of {count} channel{'s' * (count != 1)}"


def _facts(feature: dict[str, Any]) -> dict[str, Any]:
    """Return what the metadata say of a camera's pixels."""
    parts = [feature.get(key) for key in ("video_info", "info")]
    return {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}


def is_depth(feature: dict[str, Any]) -> bool:
    """Return whether ``meta/info.json`` says that a camera records depth."""
    return why_no_colour(feature) == "depth maps"


def to_colour(image: Image.Image, depth: DepthRange | None = None) -> ImageArray:
    """Convert an image to uint8 (Y, X, 3). One channel is repeated in the three colours.

    Args:
        image: Image as recorded.
        depth: Range of an image of more than 8 bits.

    Raises:
        ValueError: The image has more than 8 bits per value, and no range is given.
    """
    if image.mode[0] not in WIDE_MODES:
        return np.array(image.convert("RGB"))
    values = np.asarray(image)
    if depth is None:
        raise ValueError(
            f"the image has {8 * values.dtype.itemsize} bits per value (mode {image.mode!r}, "
            f"values from {values.min():g} to {values.max():g}), expected 8-bit colour; set "
            "depth_ranges on the robot if it is depth"
        )
    whole = np.issubdtype(values.dtype, np.integer)
    scale = MM_PER_M if (depth.unit or ("mm" if whole else "m")) == "mm" else 1.0
    span = depth.farthest - depth.nearest
    share = np.clip((np.nan_to_num(values / scale) - depth.nearest) / span, 0, 1)
    level = np.round(255 * share).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=-1)


def require_colour_video(pixel_format: Any) -> None:  # noqa: ANN401  av's, imported lazily
    """Check that a video's pixels become 8-bit colours without losing their meaning.

    Colours of 10 or 12 bits are scaled to 8, which is right. One channel of more than 8 bits is
    depth or another measurement.

    Args:
        pixel_format: ``av.VideoFormat`` of the stream.

    Raises:
        ValueError: The video has one channel of more than 8 bits.
    """
    bits = [component.bits for component in pixel_format.components]
    if len(bits) == 1 and bits[0] > 8:
        raise ValueError(
            f"the video has one channel of {bits[0]} bits ({pixel_format.name}), as depth has, "
            "expected colours; record depth as images, and set depth_ranges on the robot"
        )
