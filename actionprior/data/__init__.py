"""Trajectories, their sampling, and the contract of a DataModule.

The names below load on first use: the contract imports Lightning, the rest does not.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = ["BatchSource", "Contents", "DataError", "EmbodiedDataModule", "Frames", "Source"]

if TYPE_CHECKING:
    from actionprior.data.contents import Contents, Source
    from actionprior.data.module import BatchSource, DataError, EmbodiedDataModule, Frames
else:
    __getattr__ = lazy_exports(
        __name__, dict.fromkeys(__all__, "module") | {"Contents": "contents", "Source": "contents"}
    )
