"""Types of the arrays that pass between embodiments, stores and representations."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Images = npt.NDArray[np.uint8]


class SlotCopy(NamedTuple):
    """Copy of features into their slots: views of equal shape, with one item or number per row."""

    target: npt.NDArray[Any]  # view of the unified array
    source: npt.NDArray[Any]  # view of the robot's vectors
