"""Run every test on one thread, offline, without a display, and with its session's own cache."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before anything imports the libraries that read these once.
os.environ.update(
    {
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "",  # or the command sets it, and `python -m tests.…` finds nothing
        "SDL_AUDIODRIVER": "dummy",
        "SDL_VIDEODRIVER": "dummy",
    }
)
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # set it to run the tests on a GPU

# A shell that starts the tests in the background lets them ignore Ctrl-C, which tests press.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest
import torch

from tests.helpers.command_line import folder  # noqa: F401  a fixture of many tests

TESTS = Path(__file__).parent

torch.set_num_threads(1)
# Each run tries the same examples, and does not fail on a slow machine.
hypothesis.settings.register_profile("laws", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("laws")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no process ends long after the others.

    These are files with slow tests, then those of this folder, which run whole commands.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent != TESTS))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put what the project records on first use into a folder of this test session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTIONPRIOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test's ``seed_everything`` leaves in the environment."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
