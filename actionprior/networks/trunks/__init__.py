"""Vision-language trunks, which turn camera images and an instruction into tokens.

Each trunk is imported on first use, because open_clip and timm take seconds to load.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = ["CompactTrunk", "OpenClipTrunk", "SmallTrunk", "TimmTrunk", "VLMTrunk"]

if TYPE_CHECKING:
    from actionprior.networks.trunks.compact import CompactTrunk
    from actionprior.networks.trunks.open_clip import OpenClipTrunk
    from actionprior.networks.trunks.small import SmallTrunk
    from actionprior.networks.trunks.timm import TimmTrunk
    from actionprior.networks.trunks.vlm.trunk import VLMTrunk
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "CompactTrunk": "compact",
            "OpenClipTrunk": "open_clip",
            "SmallTrunk": "small",
            "TimmTrunk": "timm",
            "VLMTrunk": "vlm.trunk",
        },
    )
