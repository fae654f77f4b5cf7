"""Fixture that ends a test's process group."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import distributed

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def group_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the process group of a strategy, and its environment variables, with the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()
