"""Export names of a package that load on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package whose names load on first use.

    Importing the package then costs nothing, whatever its modules import.

    Args:
        package: Dotted name of the package, its ``__name__``.
        homes: Exported name → module below the package that defines it.

    Returns:
        A function for the package's ``__getattr__``.
    """

    def load(name: str) -> Any:  # noqa: ANN401  classes, functions and constants
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load
