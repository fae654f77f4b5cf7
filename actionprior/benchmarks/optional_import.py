"""Import the optional package of a benchmark, or say how to install it."""

import importlib
import os
import sys
from typing import Any

from actionprior.errors import UserError, missing_extra


class BenchmarkError(UserError):
    """A benchmark is not installed, or lacks the requested task, suite or camera."""


def import_benchmark(module: str, extra: str) -> Any:  # noqa: ANN401  benchmarks are untyped
    """Import a benchmark's module and prepare rendering without a display.

    Args:
        module: Module to import.
        extra: Extra of this project that installs the module's package.

    Raises:
        BenchmarkError: The package is not installed.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is imported
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BenchmarkError(missing_extra(error.name or module, extra)) from error
