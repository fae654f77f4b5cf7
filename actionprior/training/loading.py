"""Load LightningModules from their checkpoints without running anything that a file holds."""

import inspect
from pathlib import Path
from typing import Any, Self

from actionprior.errors import UserError


class SafeLoading:
    """Mixin that replaces Lightning's ``load_from_checkpoint``.

    Lightning's method unpickles if an environment variable asks for it, and calls the class with
    the hyper-parameters that the checkpoint holds.
    """

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a module from its checkpoint, in evaluation mode; each stage has its own method."""
        raise NotImplementedError(f"{cls.__name__} has no load()")

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **arguments: Any) -> Self:  # noqa: ANN401  those of `load`
        """Load a module from its checkpoint, exactly as ``load`` does.

        Args:
            checkpoint_path: Checkpoint of the module.
            **arguments: Further arguments of ``load``.

        Raises:
            UserError: ``load`` does not take an argument, or the checkpoint cannot be used.
        """
        known = inspect.signature(cls.load).parameters
        if unknown := [name for name in arguments if name not in known]:
            raise UserError(
                f"{cls.__name__}.load_from_checkpoint does not take {unknown[0]!r}, because the "
                f"checkpoint describes the module; it takes {', '.join(known)}"
            )
        return cls.load(checkpoint_path, **arguments)
