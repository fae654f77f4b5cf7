"""A complete cache that cannot be written is used, and others can read what a run writes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from actionprior.data import DataError
from actionprior.files.weights import save_weights
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.remote import local_copy
from tests.helpers.datasets import CAMERAS, arm, write_dataset
from tests.helpers.read_only import read_only
from tests.helpers.vla_data import everything, module

KINDS = {CAMERAS[0]: "image", CAMERAS[1]: "video"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "set", (9, 7), cameras=KINDS)


def test_stores_and_images_of_a_read_only_cache_are_used(root: Path, cache: Path) -> None:
    options = {"cameras": CAMERAS, "val_fraction": 0, "video_backend": "pyav"}
    with read_only(cache), pytest.raises(DataError, match="cannot be written there"):
        module(root, **options)
    expected = everything(module(root, **options)).observation.images_BCKYX
    with read_only(cache):
        found = everything(module(root, **options)).observation.images_BCKYX
    np.testing.assert_array_equal(found, expected)


def test_images_that_lack_in_a_read_only_cache_are_reported(root: Path, cache: Path) -> None:
    module(root, val_fraction=0)
    with read_only(cache), pytest.raises(DataError, match="decoded images cannot be written there"):
        module(root, cameras=CAMERAS, val_fraction=0, video_backend="pyav")


def test_damaged_images_of_a_read_only_cache_are_decoded(root: Path, cache: Path) -> None:
    data = module(root, val_fraction=0)
    expected = everything(data).observation.images_BCKYX
    for path in cache.rglob("*.npy"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with read_only(cache):
        found = everything(module(root, val_fraction=0)).observation.images_BCKYX
    np.testing.assert_array_equal(found, expected)


def test_resampled_data_of_a_read_only_cache_are_used(root: Path, cache: Path) -> None:
    robot = arm(root, control_hz=20, resample=True)
    expected = read_columns(root, robot).action_Na[:]
    with read_only(cache):
        np.testing.assert_array_equal(read_columns(root, robot).action_Na[:], expected)


def test_the_light_copy_of_a_url_in_a_read_only_cache_is_used(root: Path, cache: Path) -> None:
    url = root.as_uri()
    copied = local_copy(url)
    with read_only(cache):
        assert local_copy(url) == copied


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_says(
    root: Path, cache: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        module(root, val_fraction=0)
        save_weights({"a": torch.zeros(3)}, cache / "model.safetensors")
    finally:
        os.umask(before)
    files = [path for path in cache.rglob("*") if path.is_file() and ".lock" not in str(path)]
    assert len(files) > 5
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
