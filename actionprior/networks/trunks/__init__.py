"""Vision-language trunks: what turns camera images and an instruction into tokens.

Each is imported when it is asked for: open_clip and timm take seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["OpenClipTrunk", "SmallTrunk", "TimmTrunk"]

if TYPE_CHECKING:
    from actionprior.networks.trunks.open_clip import OpenClipTrunk
    from actionprior.networks.trunks.small import SmallTrunk
    from actionprior.networks.trunks.timm import TimmTrunk
else:
    _HOMES = {"OpenClipTrunk": "open_clip", "SmallTrunk": "small", "TimmTrunk": "timm"}

    def __getattr__(name: str) -> type:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
