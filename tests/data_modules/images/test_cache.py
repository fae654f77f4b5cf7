"""Test the cache of decoded images: its limit, and what can go wrong."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actionprior.data import DataError
from data_modules.images.cache import ArrayCache, Shape, WriteOutcome, file_size

SHAPE = (4, 3, 6, 8)
SIZE = file_size(SHAPE)


def pictures(seed: int, shape: Shape = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def write(
    cache: ArrayCache, number: int, keep: tuple[int, ...] = (), wait: bool = True
) -> WriteOutcome:
    chunks = pictures(number).split(3)
    return cache.write(
        path_of(cache, number), SHAPE, lambda: chunks, {path_of(cache, k) for k in keep}, wait
    )


def path_of(cache: ArrayCache, number: int) -> Path:
    return cache.folder / "set" / "camera" / f"episode_{number:06d}.npy"


def cached_numbers(cache: ArrayCache) -> list[int]:
    return [n for n in range(10) if cache.has(path_of(cache, n), SHAPE)]


def test_written_images_are_read(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    assert cache.open(path_of(cache, 3), SHAPE) is None
    assert write(cache, 3) is WriteOutcome.PRESENT
    found = cache.open(path_of(cache, 3), SHAPE)
    assert found is not None
    for row, image in enumerate(pictures(3)):
        np.testing.assert_array_equal(found.row(row), image)
    np.testing.assert_array_equal(np.load(path_of(cache, 3), mmap_mode="r"), pictures(3))
    assert path_of(cache, 3).stat().st_size == SIZE


def test_the_least_recently_used_file_makes_room(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, 3 * SIZE)
    for number in range(3):
        write(cache, number)
        os.utime(path_of(cache, number), (number, number))
    cache.open(path_of(cache, 0), SHAPE)
    write(cache, 3)
    assert cached_numbers(cache) == [0, 2, 3]
    assert write(cache, 4, keep=(2, 3)) is WriteOutcome.PRESENT
    assert cached_numbers(cache) == [2, 3, 4]
    assert cache.available_bytes({path_of(cache, 2)}) == 2 * SIZE


def test_kept_files_make_no_room_and_nothing_is_deleted_in_vain(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, 2 * SIZE)
    write(cache, 0)
    write(cache, 1)
    assert write(cache, 2, keep=(0, 1)) is WriteOutcome.NO_ROOM
    assert cached_numbers(cache) == [0, 1]
    assert write(ArrayCache(tmp_path, SIZE - 1), 2) is WriteOutcome.NO_ROOM
    assert cached_numbers(cache) == [0, 1]


def test_a_lowered_limit_applies_at_once(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    for number in range(4):
        write(cache, number)
        os.utime(path_of(cache, number), (number, number))
    lowered = ArrayCache(tmp_path, 2 * SIZE)
    lowered.clean_up({path_of(cache, 1)})
    assert cached_numbers(cache) == [1, 3]
    ArrayCache(tmp_path, SIZE - 1).clean_up({path_of(cache, 1)})
    assert cached_numbers(cache) == []


def test_files_of_other_sizes_are_ignored(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    write(cache, 0)
    path = path_of(cache, 0)
    for content in (b"", path.read_bytes()[:-1], path.read_bytes() + b"1"):
        path.write_bytes(content)
        assert cache.open(path, SHAPE) is None
        assert write(cache, 0) is WriteOutcome.PRESENT
        assert cache.open(path, SHAPE) is not None


def test_each_flipped_byte_of_an_image_is_detected(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    write(cache, 0)
    whole = path_of(cache, 0).read_bytes()
    header = SIZE - 4 * SHAPE[0] - pictures(0).numel()
    for place in (header, header + 200, SIZE - 17, SIZE - 1):
        content = bytearray(whole)
        content[place] ^= 1
        path_of(cache, 0).write_bytes(content)
        found = cache.open(path_of(cache, 0), SHAPE)
        assert found is not None
        read = [found.row(row) for row in range(4)]
        assert sum(image is None for image in read) == 1
        for image, expected in zip(read, pictures(0), strict=True):
            assert image is None or np.array_equal(image, expected)


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)

    def broken():
        yield pictures(0)[:2]
        raise DataError("no such frame")

    with pytest.raises(DataError, match="no such frame"):
        cache.write(path_of(cache, 0), SHAPE, broken, (), wait=True)
    assert [p for p in (tmp_path / "set").rglob("*") if p.is_file()] == []


def test_files_of_killed_writers_count_until_they_are_deleted(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, 2 * SIZE)
    write(cache, 0)
    left = path_of(cache, 1).with_name(f".{path_of(cache, 1).name}.part")
    left.write_bytes(bytes(SIZE))
    assert write(cache, 2, keep=(0,)) is WriteOutcome.NO_ROOM
    with cache._write_lock(left, wait=True):  # it is still being written
        cache.clean_up(())
        assert left.exists()
        assert write(cache, 1, wait=False) is WriteOutcome.BUSY
    cache.clean_up(())
    assert not left.exists()
    assert write(cache, 2, keep=(0,)) is WriteOutcome.PRESENT


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"cannot be written there .*or cache_gb to the space that is free"
    ):
        write(ArrayCache(tmp_path / "file" / "cache"), 0)


def test_too_many_open_files_are_reported(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    write(cache, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = len(os.listdir("/proc/self/fd")) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    held: list[object] = []
    try:
        with pytest.raises(DataError, match=r"npy: the decoded images cannot be opened .*ulimit"):
            held.extend(cache.open(path_of(cache, 0), SHAPE) for _ in range(most))
        assert None not in held
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
