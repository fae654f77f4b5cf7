"""Where the recordings of real robots are."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_ONE_OF_THEM = "so101_bimanual_cloth/arm1.json"


def find_recordings() -> Path:
    """Folder ``$ACTIONPRIOR_RECORDINGS``, else one with recordings beside the checkout."""
    if named := os.environ.get("ACTIONPRIOR_RECORDINGS"):
        return Path(named)
    beside = PROJECT.parent
    found = [
        path.parents[1] for depth in ("*", "*/*") for path in beside.glob(f"{depth}/{_ONE_OF_THEM}")
    ]
    return min(found, default=beside / "recordings")


RECORDINGS = find_recordings()
