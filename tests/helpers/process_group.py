"""Process groups that end with their test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import distributed

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def group_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The group of processes that a strategy opens, and what it tells of it, end with the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()
