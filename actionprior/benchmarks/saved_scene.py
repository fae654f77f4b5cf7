"""Where everything stood at one step, so that MuJoCo can draw the step later."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SavedScene = dict[str, NDArray[np.float64]]

_DRAWN = (
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "cam_xpos",
    "cam_xmat",
    "light_xpos",
    "light_xdir",
)
"""What MuJoCo draws from: positions and orientations in the world."""


def save_scene(data: Any) -> SavedScene:  # noqa: ANN401  MuJoCo is untyped
    """Copy from an ``MjData`` what MuJoCo draws from."""
    return {name: getattr(data, name).copy() for name in _DRAWN}


def show_scene(data: Any, scene: SavedScene) -> None:  # noqa: ANN401  MuJoCo is untyped
    """Write a saved scene into an ``MjData``. The next step of the physics overwrites it."""
    for name, values in scene.items():
        getattr(data, name)[:] = values
