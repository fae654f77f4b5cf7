"""How far the filling of a cache is, as a log file shows it."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from data_modules.images.cache import ArrayCache, WriteOutcome
from data_modules.images.filling import fill_cache


@dataclass(frozen=True)
class Small:
    path: Path
    cache: ArrayCache
    shape: tuple[int, ...] = (1, 2)

    def write(self, keep: Collection[Path], wait: bool) -> WriteOutcome:
        time.sleep(0.005)  # in all longer than ten updates of a terminal
        rows = [torch.zeros(2, dtype=torch.uint8)]
        return self.cache.write(self.path, self.shape, lambda: iter(rows), keep, wait)


def test_a_log_file_is_not_filled_with_progress(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = ArrayCache(tmp_path)
    assert fill_cache(cache, [Small(tmp_path / f"{i}", cache) for i in range(300)], "files") is None
    said = capfd.readouterr().err
    assert "files: 100%" in said
    assert said.count("episode/s") < 5
