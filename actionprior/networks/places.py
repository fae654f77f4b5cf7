"""Places in metres as features of a network, also relative to the robot's tip.

Axes: B batch, C cameras, R things, F features.
"""

import math
from itertools import combinations

import torch
from torch import Tensor

from actionprior.networks.device import to_device

_PERIODS = (1.0, 0.5, 0.25)
PLACE_FEATURES = 3 * (1 + 2 * len(_PERIODS))
"""Number of values that :func:`place_features` returns per place."""
_NEAR = 0.03
"""Distance up to which a further feature grows [m]; it separates places near a thing."""


def place_features(place: Tensor) -> Tensor:
    """Return coordinates (..., 3) [m] with their sines and cosines, (..., 21)."""
    period = to_device(torch.tensor(_PERIODS), place.device)
    angle = (2 * math.pi * place[..., None] / period).flatten(-2)
    return torch.cat([place / 0.2, angle.sin(), angle.cos()], dim=-1)


def relative_width(things: int) -> int:
    """Return the number of values that :func:`relative_places` gives per camera."""
    return (things + things * (things - 1) // 2) * (PLACE_FEATURES + 3)


def relative_places(thing_BCR3: Tensor, tip_B3: Tensor) -> Tensor:
    """Return where things are from the robot's tip and from each other, (B, C, F).

    What to do next near a thing depends on where it is from the tip, and is the same wherever both
    are. A network that has to subtract the two itself stops centimetres off.

    Args:
        thing_BCR3: Places of things, as each camera shows them [m, robot base frame].
        tip_B3: Place of the robot's tip [m, robot base frame].
    """
    from_tip_BCR3 = thing_BCR3 - tip_B3[:, None, None]
    between = [
        thing_BCR3[:, :, b] - thing_BCR3[:, :, a]
        for a, b in combinations(range(thing_BCR3.shape[2]), 2)
    ]
    vector_BCV3 = torch.cat([from_tip_BCR3, *(v[:, :, None] for v in between)], dim=2)
    features = [place_features(vector_BCV3), (vector_BCV3 / _NEAR).tanh()]
    return torch.cat(features, dim=-1).flatten(2)
