"""Import what is an extra, or say what to install."""

import importlib
import os
import sys
from typing import Any

from actionprior.errors import UserError, missing_extra


class BenchmarkError(UserError):
    """A benchmark that is not installed, or is asked for what it does not have."""


def benchmark(module: str, extra: str) -> Any:  # noqa: ANN401  they are untyped
    """Import a benchmark's module, ready to draw without a display.

    Raises:
        BenchmarkError: its package is not installed.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is imported
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BenchmarkError(missing_extra(error.name or module, extra)) from error
