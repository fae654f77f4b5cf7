from pathlib import Path

import pytest

from tests.helpers.datasets import CAMERAS, write_dataset, write_v2


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes without images."""
    return write_dataset(tmp_path_factory.mktemp("data") / "plain")


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes with one camera as images and one as video, of different sizes."""
    return write_dataset(
        tmp_path_factory.mktemp("data") / "seen",
        cameras={CAMERAS[0]: "image", CAMERAS[1]: "video"},
        sizes={CAMERAS[1]: (64, 96)},
    )


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``seen``, with a video an episode."""
    return write_dataset(
        tmp_path_factory.mktemp("data") / "split",
        cameras={CAMERAS[0]: "image", CAMERAS[1]: "video"},
        sizes={CAMERAS[1]: (64, 96)},
        split_videos=True,
    )


@pytest.fixture(scope="session")
def old(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``split`` in format v2.1."""
    return write_v2(split, tmp_path_factory.mktemp("data") / "old")
