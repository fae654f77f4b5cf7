"""Test the choice of a decoder, and that each returns the frames nearest to given times."""

import sys
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from actionprior.data import DataError
from data_modules.images.video import CHUNK, choose_decoder, decode_video
from tests.helpers.datasets import CAMERAS
from tests.helpers.vla_data import decoders


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 150 frames at 10 per second. Frame t shows t // 16 (left) and t % 16 (right).

    A key frame comes every 40 frames, and frames are stored in another order than shown.
    """
    path = tmp_path_factory.mktemp("video") / "counted.mp4"
    options = {"g": "40", "sc_threshold": "0", "bf": "2", "b_strategy": "0", "crf": "10"}
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for t in range(150):
            picture = np.full((32, 64, 3), t // 16 * 16, dtype=np.uint8)
            picture[:, 32:] = t % 16 * 16
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def counted(video: Path, times: list[float], decoder: str = "pyav") -> list[int]:
    chunks = list(decode_video(str(video), times, 0.05, decoder))
    assert all(len(chunk) == CHUNK for chunk in chunks[:-1])
    frames = torch.cat(chunks)
    assert frames.dtype == torch.uint8
    assert frames.shape == (len(times), 3, 32, 64)
    digits = (frames.float().unflatten(3, (2, 32)).mean((1, 2, 4)) / 16).round().int()
    return (digits[:, 0] * 16 + digits[:, 1]).tolist()


@pytest.mark.parametrize("decoder", decoders())
@pytest.mark.parametrize(
    "frames", [range(150), [0], [149], [39, 40, 41], [3, 90, 149], range(60, 130, 7), [5, 5, 6]]
)
def test_the_nearest_frames_are_returned_in_order(frames, decoder: str, video: Path) -> None:
    off = np.random.default_rng(0).uniform(-0.03, 0.03, 150)
    times = [max(0.0, t / 10 + float(off[t])) for t in frames]
    assert counted(video, times, decoder) == list(frames)


def test_missing_frames_are_reported(video: Path) -> None:
    with pytest.raises(ValueError, match=r"nearest to 15\.400 s is at 14\.900 s, expected within"):
        counted(video, [14.9, 15.4])
    with pytest.raises(ValueError, match=r"nearest to 1\.050 s is at 1\.000 s"):
        list(decode_video(str(video), [1.05], 0.01, "pyav"))


def test_frames_equal_lerobots(seen: Path) -> None:
    from lerobot.datasets.video_utils import decode_video_frames

    (source,) = (seen / "videos" / CAMERAS[1]).rglob("*.mp4")
    times = [t / 10 for t in range(28)]
    for decoder in decoders():
        expected = decode_video_frames(source, times, 0.05, decoder, return_uint8=True)
        assert torch.equal(
            torch.cat(list(decode_video(str(source), times, 0.05, decoder))), expected
        )


def test_auto_selects_what_loads_silently(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_decoder("auto") in ("torchcodec", "pyav")
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # makes an import fail
        assert choose_decoder("auto") == "pyav"
    assert choose_decoder("pyav") == "pyav"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_does_not_load_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(DataError, match=r"'torchcodec', which does not load here .* install that"):
        choose_decoder("torchcodec")
    with pytest.raises(DataError, match="video_backend is 'opencv', expected one of"):
        choose_decoder("opencv")
