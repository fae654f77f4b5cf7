"""Orientations: the encodings that datasets use, and the forms that models see.

Actions are learnt as rotation vectors relative to the chunk's first state. These are near zero,
where they neither jump nor wrap. States are unit quaternions or six-dimensional (Zhou et al., "On
the Continuity of Rotation Representations in Neural Networks", CVPR 2019).

The library roma does the computation; this module fixes the conventions. Angles are in radians.
Tensors are (..., k) with k the width of the encoding.
"""

import re
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

VECTOR_WIDTH = 3
_SHORTEST = 1e-6  # length below which a vector has no direction
_WIDTHS = {
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "axis_angle": 3,
    "rotation_6d": 6,
    "rotation_6d_rows": 6,
}
_EULER = re.compile(r"euler_(?=[xyz]{3}$|[XYZ]{3}$)(?!.*(.)\1).{3}")


@cache
def _roma() -> Any:  # noqa: ANN401  # untyped
    """Import roma on first use: it loads torch's compiler, which takes each process seconds."""
    import roma

    return roma


def encoding_width(encoding: str) -> int | None:
    """Count the numbers that an encoding takes; None if the encoding is unknown.

    Known encodings:

    - ``quaternion_xyzw``, ``quaternion_wxyz``
    - ``axis_angle``: rotation vector
    - ``rotation_6d``: first two columns of the matrix, one after the other
    - ``rotation_6d_rows``: first two rows of the matrix, as in pytorch3d
    - ``euler_xyz`` and the like: about fixed axes in this order (roll, pitch, yaw of a URDF)
    - ``euler_XYZ`` and the like: about the moving axes
    """
    return 3 if _EULER.fullmatch(encoding) else _WIDTHS.get(encoding)


def known_encodings() -> list[str]:
    """List the encodings that ``encoding_width`` knows, for messages."""
    return [*_WIDTHS, "euler_xyz", "euler_XYZ", "…"]


def to_quaternion(values: Tensor, encoding: str) -> Tensor:
    """Convert (..., k) to unit quaternions (..., 4) in the order x, y, z, w."""
    quaternion: Tensor
    if encoding == "quaternion_xyzw":
        quaternion = _roma().quat_normalize(values)
    elif encoding == "quaternion_wxyz":
        quaternion = _roma().quat_normalize(_roma().quat_wxyz_to_xyzw(values))
    elif encoding == "axis_angle":
        quaternion = _roma().rotvec_to_unitquat(values)
    elif encoding.startswith("rotation_6d"):
        pairs = values.reshape(*values.shape[:-1], 2, 3).transpose(-1, -2)
        matrix: Tensor = _roma().special_gramschmidt(pairs)
        rows = encoding.endswith("rows")
        quaternion = _roma().rotmat_to_unitquat(matrix.transpose(-1, -2) if rows else matrix)
    else:
        quaternion = _roma().euler_to_unitquat(encoding.removeprefix("euler_"), values)
    return quaternion


def no_turn(values_Nk: npt.NDArray[np.float32], encoding: str) -> npt.NDArray[np.bool_]:
    """Find the rows (N, k) that are no orientation.

    These are quaternions of length 0, and matrix columns of length 0 or along one line. Every
    rotation vector and every Euler angle is an orientation.
    """
    if encoding.startswith("rotation_6d"):
        values_Nk = np.cross(values_Nk[:, :3], values_Nk[:, 3:])
    elif not encoding.startswith("quaternion"):
        return np.zeros(len(values_Nk), dtype=np.bool_)
    none_N: npt.NDArray[np.bool_] = np.linalg.norm(values_Nk, axis=1) < _SHORTEST
    return none_N


def from_quaternion(quaternion: Tensor, encoding: str) -> Tensor:
    """Convert unit quaternions to an encoding; as quaternions they get w ≥ 0."""
    values: Tensor
    if encoding.startswith("quaternion"):
        values = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
        if encoding.endswith("wxyz"):
            values = _roma().quat_xyzw_to_wxyz(values)
    elif encoding == "axis_angle":
        values = _roma().unitquat_to_rotvec(quaternion)
    elif encoding.startswith("rotation_6d"):
        matrix: Tensor = _roma().unitquat_to_rotmat(quaternion)
        if encoding.endswith("rows"):
            matrix = matrix.transpose(-1, -2)
        values = matrix[..., :2].transpose(-1, -2).flatten(-2)
    else:
        values = _roma().unitquat_to_euler(encoding.removeprefix("euler_"), quaternion)
    return values


def wrapped(angle: Tensor, period: float = 2 * torch.pi) -> Tensor:
    """Bring angles within [-``period`` / 2, ``period`` / 2)."""
    return (angle + period / 2) % period - period / 2


def relative_vector(vector: Tensor, reference: Tensor) -> Tensor:
    """Compute the turn from the reference, in its frame: log(R_ref⁻¹ R) as a vector (..., 3)."""
    back = _roma().quat_conjugation(_roma().rotvec_to_unitquat(reference))
    return _product_vector(back, _roma().rotvec_to_unitquat(vector))


def absolute_vector(relative: Tensor, reference: Tensor) -> Tensor:
    """Undo ``relative_vector``: log(R_ref exp(relative)) as a vector (..., 3)."""
    return _product_vector(
        _roma().rotvec_to_unitquat(reference), _roma().rotvec_to_unitquat(relative)
    )


def between(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Interpolate (..., 4): go a ``share`` (...) of the shorter way from first to second."""
    part = _product_vector(_roma().quat_conjugation(first), second) * share[..., None]
    quaternion: Tensor = _roma().quat_product(first, _roma().rotvec_to_unitquat(part))
    return quaternion


def _product_vector(first: Tensor, second: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(first.shape, second.shape)  # type: ignore[no-untyped-call]  # torch
    product = _roma().quat_product(first.expand(shape), second.expand(shape))
    vector: Tensor = _roma().unitquat_to_rotvec(product)
    return vector
