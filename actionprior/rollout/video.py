"""Write videos of episodes: mp4 files and GIF bytes."""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from actionprior.rollout.results import Frame


def enlarge(frame: Frame, smallest: int = 256) -> Frame:
    """Repeat pixels a whole number of times until both edges have at least ``smallest``.

    (Y, X, 3) → (k·Y, k·X, 3), without a last odd row or column (yuv420p needs even edges).
    """
    factor = max(1, -(-smallest // min(frame.shape[:2])))
    big = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.ascontiguousarray(big[: big.shape[0] // 2 * 2, : big.shape[1] // 2 * 2])


def write_mp4(frames: Iterable[Frame], path: Path, fps: float) -> None:
    """Write frames as H.264 video in yuv420p, which every browser plays.

    Args:
        frames: At least one image (Y, X, 3), uint8, all of one size. Small ones are enlarged to
            256 pixels.
        path: File to write. Its folder is created.
        fps: Frames per second.
    """
    import av  # takes 0.1 s, and only videos need it

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            large = enlarge(frame)
            if number == 0:
                stream.height, stream.width = large.shape[:2]
            picture = av.VideoFrame.from_ndarray(large, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def gif_bytes(frames: Sequence[Frame], fps: float) -> bytes:
    """Encode frames as a looping GIF, TensorBoard's video format."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    # A GIF counts time in hundredths of a second. Disposal 2 and no optimisation: otherwise equal
    # frames are merged.
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=10 * max(2, round(100 / fps)),
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()
