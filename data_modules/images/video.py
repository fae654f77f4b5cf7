"""Decode frames of videos by torchcodec, or by PyAV if torchcodec does not load."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionprior.data import DataError
from actionprior.errors import shorten
from actionprior.files.pictures import ONLY_VIDEOS
from data_modules.images.pixels import require_colour_video
from data_modules.lerobot.source import AnyArray

DECODERS = ("torchcodec", "pyav")
CHUNK = 64
"""Frames decoded at once, if they are small."""
CHUNK_BYTES = 1 << 28
"""Size of the frames that are decoded at once [bytes], which limits memory for large frames."""


def choose_decoder(wanted: str) -> str:
    """Check the name of a decoder. For ``auto``, return the first of ``DECODERS`` that loads.

    Raises:
        DataError: The name is unknown, or torchcodec is requested and does not load.
    """
    if wanted not in ("auto", *DECODERS):
        raise DataError(f"video_backend is {wanted!r}, expected one of {['auto', *DECODERS]}")
    if wanted == "pyav":
        return wanted
    try:
        import torchcodec.decoders  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        if wanted == "torchcodec":
            raise DataError(
                f"video_backend is 'torchcodec', which does not load here ({shorten(error)}); it "
                "needs FFmpeg 4 to 8 on the system: install that, or take 'auto' or 'pyav'"
            ) from error
        return "pyav"
    return "torchcodec"


def decode_video(
    source: str, times: Sequence[float], tolerance: float, decoder: str
) -> Iterator[Tensor]:
    """Yield the frames nearest to ``times`` in chunks, uint8 (N, 3, Y, X), N up to ``CHUNK``.

    Args:
        source: Path, or URL that fsspec reads.
        times: Ascending times [s].
        tolerance: Largest distance of a frame from its time [s].
        decoder: One of ``DECODERS``.

    Raises:
        Exception: The decoder cannot read the video.
    """
    if decoder == "torchcodec":
        return _decode_torchcodec(source, times, tolerance)
    return _decode_pyav(source, times, tolerance)


def _decode_torchcodec(source: str, times: Sequence[float], tolerance: float) -> Iterator[Tensor]:
    from lerobot.datasets.video_utils import decode_video_frames_torchcodec

    _require_colour(source)
    count = max(1, min(CHUNK, CHUNK_BYTES // frame_bytes(source)))
    for first in range(0, len(times), count):
        yield decode_video_frames_torchcodec(
            source,
            list(times[first : first + count]),
            tolerance,
            decoder_cache=_open_decoders(os.getpid()),
            return_uint8=True,
        )


@lru_cache(maxsize=1024)
def _require_colour(source: str) -> None:
    with _open_container(source) as container:
        require_colour_video(container.streams.video[0].codec_context.format)


@lru_cache(maxsize=4096)
def frame_bytes(source: str) -> int:
    """Return the size of a video's frames in RGB [bytes], by its header."""
    with _open_container(source) as container:
        stream = container.streams.video[0]
        return max(1, 3 * int(stream.width) * int(stream.height))


@lru_cache(maxsize=4096)
def video_seconds(source: str) -> float | None:
    """Return the duration of a video by its header, None if it does not say it [s]."""
    with _open_container(source) as container:
        stream = container.streams.video[0]
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return None if container.duration is None else container.duration / 1e6


def close_decoders() -> None:
    """Close all videos, since a file of the same name may have been replaced."""
    _open_decoders.cache_clear()
    frame_bytes.cache_clear()
    video_seconds.cache_clear()
    _require_colour.cache_clear()


@lru_cache(maxsize=1)
def _open_decoders(process: int) -> Any:  # noqa: ANN401  lerobot's, untyped
    """Return a cache of open decoders per process. Forked processes must not share files."""
    from lerobot.datasets.video_utils import VideoDecoderCache

    return VideoDecoderCache(max_size=16)


def _decode_pyav(source: str, times: Sequence[float], tolerance: float) -> Iterator[Tensor]:
    chosen: list[AnyArray] = []
    for image in _nearest_frames(source, times, tolerance):
        chosen.append(image)
        if len(chosen) == CHUNK or len(chosen) * image.nbytes > CHUNK_BYTES:
            yield _stack(chosen)
            chosen = []
    if chosen:
        yield _stack(chosen)


def _stack(images: list[AnyArray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _nearest_frames(source: str, times: Sequence[float], tolerance: float) -> Iterator[AnyArray]:
    """Yield the nearest frames in a single pass over the video from a key frame on."""
    with _open_container(source) as container:
        stream = container.streams.video[0]
        tick = stream.time_base
        if tick is None:
            raise ValueError("the video has no time base")
        require_colour_video(stream.codec_context.format)
        # Seek one tick early, so that a key frame exactly at the first time is not skipped.
        container.seek(round(times[0] / tick) - 1, backward=True, any_frame=False, stream=stream)
        done, before, then = 0, None, -np.inf
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            now = float(frame.pts * tick)
            while done < len(times) and times[done] <= now:
                if before is not None and times[done] - then <= now - times[done]:
                    yield _pixels(before, then, times[done], tolerance)
                else:
                    yield _pixels(frame, now, times[done], tolerance)
                done += 1
            if done == len(times):
                return
            before, then = frame, now
        if before is None:
            raise ValueError(f"the video has no frame at or after {times[0]:.3f} s")
        for time in times[done:]:  # the video's last frame
            yield _pixels(before, then, time, tolerance)


@contextmanager
def _open_container(source: str) -> Iterator[Any]:
    import av

    if "://" not in source:
        with av.open(source, options=ONLY_VIDEOS) as container:
            yield container
        return
    import fsspec

    with fsspec.open(source, "rb") as file, av.open(file, options=ONLY_VIDEOS) as container:
        yield container


def _pixels(frame: Any, found: float, wanted: float, tolerance: float) -> AnyArray:  # noqa: ANN401  av's, imported lazily
    if not abs(found - wanted) < tolerance:
        raise ValueError(
            f"the frame nearest to {wanted:.3f} s is at {found:.3f} s, expected within "
            f"{tolerance:.3f} s"
        )
    pixels: AnyArray = frame.to_ndarray(format="rgb24")
    return pixels
