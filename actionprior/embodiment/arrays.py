"""Types of the arrays that pass between embodiments, stores and representations."""

from types import EllipsisType

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Rows = slice | EllipsisType | npt.NDArray[np.int64]
