"""Features of a robot: their representation and normalisation.

The names below load on first use.
"""

from typing import TYPE_CHECKING

from actionprior.lazy import lazy_exports

__all__ = [
    "ACTION_WIDTH",
    "STATE_WIDTH",
    "ActionGroup",
    "BoolArray",
    "Embodiment",
    "EmbodimentError",
    "FloatArray",
    "SlotCopy",
    "StateGroup",
]

if TYPE_CHECKING:
    from actionprior.embodiment.embodiment import (
        ACTION_WIDTH,
        STATE_WIDTH,
        ActionGroup,
        BoolArray,
        Embodiment,
        EmbodimentError,
        FloatArray,
        SlotCopy,
        StateGroup,
    )
else:
    __getattr__ = lazy_exports(__name__, dict.fromkeys(__all__, "embodiment"))
