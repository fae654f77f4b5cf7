"""The cache of decoded images: its bound, and what can go wrong."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actionprior.data import DataError
from data_modules.images.cache import ImageCache, Shape, WriteOutcome, file_size

SHAPE = (4, 3, 6, 8)
SIZE = file_size(SHAPE)


def pictures(seed: int, shape: Shape = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def write(
    cache: ImageCache, number: int, keep: tuple[int, ...] = (), wait: bool = True
) -> WriteOutcome:
    chunks = pictures(number).split(3)
    return cache.write(at(cache, number), SHAPE, lambda: chunks, {at(cache, k) for k in keep}, wait)


def at(cache: ImageCache, number: int) -> Path:
    return cache.folder / "set" / "camera" / f"episode_{number:06d}.npy"


def held(cache: ImageCache) -> list[int]:
    return [n for n in range(10) if cache.has(at(cache, n), SHAPE)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    assert cache.open(at(cache, 3), SHAPE) is None
    assert write(cache, 3) is WriteOutcome.WHOLE
    found = cache.open(at(cache, 3), SHAPE)
    assert found is not None
    for row, image in enumerate(pictures(3)):
        np.testing.assert_array_equal(found.image(row), image)
    np.testing.assert_array_equal(np.load(at(cache, 3), mmap_mode="r"), pictures(3))
    assert at(cache, 3).stat().st_size == SIZE


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 3 * SIZE)
    for number in range(3):
        write(cache, number)
        os.utime(at(cache, number), (number, number))
    cache.open(at(cache, 0), SHAPE)
    write(cache, 3)
    assert held(cache) == [0, 2, 3]
    assert write(cache, 4, keep=(2, 3)) is WriteOutcome.WHOLE
    assert held(cache) == [2, 3, 4]
    assert cache.room({at(cache, 2)}) == 2 * SIZE


def test_what_is_kept_makes_no_room_and_nothing_goes_in_vain(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 2 * SIZE)
    write(cache, 0)
    write(cache, 1)
    assert write(cache, 2, keep=(0, 1)) is WriteOutcome.NO_ROOM
    assert held(cache) == [0, 1]
    assert write(ImageCache(tmp_path, SIZE - 1), 2) is WriteOutcome.NO_ROOM
    assert held(cache) == [0, 1]


def test_a_lowered_bound_is_kept_to_at_once(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    for number in range(4):
        write(cache, number)
        os.utime(at(cache, number), (number, number))
    lowered = ImageCache(tmp_path, 2 * SIZE)
    lowered.tidy({at(cache, 1)})
    assert held(cache) == [1, 3]
    ImageCache(tmp_path, SIZE - 1).tidy({at(cache, 1)})
    assert held(cache) == []


def test_other_sizes_are_no_file_of_ours(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    write(cache, 0)
    path = at(cache, 0)
    for content in (b"", path.read_bytes()[:-1], path.read_bytes() + b"1"):
        path.write_bytes(content)
        assert cache.open(path, SHAPE) is None
        assert write(cache, 0) is WriteOutcome.WHOLE
        assert cache.open(path, SHAPE) is not None


def test_each_flipped_byte_of_an_image_is_noticed(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    write(cache, 0)
    whole = at(cache, 0).read_bytes()
    header = SIZE - 4 * SHAPE[0] - pictures(0).numel()
    for place in (header, header + 200, SIZE - 17, SIZE - 1):
        content = bytearray(whole)
        content[place] ^= 1
        at(cache, 0).write_bytes(content)
        found = cache.open(at(cache, 0), SHAPE)
        assert found is not None
        read = [found.image(row) for row in range(4)]
        assert sum(image is None for image in read) == 1
        for image, expected in zip(read, pictures(0), strict=True):
            assert image is None or np.array_equal(image, expected)


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)

    def broken():
        yield pictures(0)[:2]
        raise DataError("no such frame")

    with pytest.raises(DataError, match="no such frame"):
        cache.write(at(cache, 0), SHAPE, broken, (), wait=True)
    assert [p for p in (tmp_path / "set").rglob("*") if p.is_file()] == []


def test_what_a_killed_writer_left_is_counted_until_it_is_removed(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 2 * SIZE)
    write(cache, 0)
    left = at(cache, 1).with_name(f".{at(cache, 1).name}.part")
    left.write_bytes(bytes(SIZE))
    assert write(cache, 2, keep=(0,)) is WriteOutcome.NO_ROOM
    with cache._turn(left, wait=True):  # it is still being written
        cache.tidy(())
        assert left.exists()
        assert write(cache, 1, wait=False) is WriteOutcome.BUSY
    cache.tidy(())
    assert not left.exists()
    assert write(cache, 2, keep=(0,)) is WriteOutcome.WHOLE


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"cannot be kept there .*set cache_gb to the room there is"
    ):
        write(ImageCache(tmp_path / "file" / "cache"), 0)


def test_too_many_open_files_are_told(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    write(cache, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = len(os.listdir("/proc/self/fd")) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    held: list[object] = []
    try:
        with pytest.raises(DataError, match=r"npy: the decoded images cannot be opened .*ulimit"):
            held.extend(cache.open(at(cache, 0), SHAPE) for _ in range(most))
        assert None not in held
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
