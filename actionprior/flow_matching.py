"""Conditional flow matching on straight paths.

Flow time ``r = 0`` is noise and ``r = 1`` is data everywhere (arXiv 2606.26095, Sec. III-B).
Formulas of papers with the opposite direction are converted.

Axes: B batch, D any number of trailing data axes.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

TimeLaw = Literal["uniform", "beta"]
Integrator = Literal["euler", "midpoint", "rk4"]
INTEGRATORS: tuple[Integrator, ...] = get_args(Integrator)
VelocityField = Callable[[Tensor, Tensor], Tensor]


class FlowSample(NamedTuple):
    """Point on the path from noise to data, and the velocity to learn there."""

    x_r: Tensor  # (B, *D)
    velocity: Tensor  # (B, *D)


def expand_time(r_B: Tensor, like: Tensor) -> Tensor:
    """Reshape flow times ``(B,)`` to broadcast over the trailing axes of ``like``.

    Raises:
        ValueError: ``r_B`` does not hold one time per row of the batch.
    """
    if r_B.shape != like.shape[:1]:
        raise ValueError(
            f"flow time has shape {tuple(r_B.shape)}, expected one time per row: ({like.shape[0]},)"
        )
    return r_B.reshape(-1, *([1] * (like.dim() - 1)))


def path_sample(data: Tensor, noise: Tensor, r_B: Tensor) -> FlowSample:
    """Sample the straight path from noise to data.

    x_r = r·data + (1 - r)·noise and v = data - noise (arXiv 2606.26095, Eq. 2).

    Args:
        data: Normalised data (B, *D).
        noise: Standard normal noise (B, *D).
        r_B: Flow times (B,) in [0, 1].
    """
    r = expand_time(r_B, data)
    return FlowSample(x_r=r * data + (1 - r) * noise, velocity=data - noise)


def sample_time(
    count: int,
    law: TimeLaw = "uniform",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw ``count`` flow times, stratified over the batch: (u + i/B) mod 1.

    ``uniform`` covers [0, 1) evenly. ``beta`` is π0's law (arXiv 2410.24164, App. B) in this
    module's direction: the noise level 1 - r follows Beta(1.5, 1), scaled to [0.001, 1]. Early,
    noisy times are therefore drawn more often.

    Raises:
        ValueError: The law is unknown.
    """
    u = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
    strata = torch.arange(count, device=device, dtype=torch.float64) / max(count, 1)
    u_B = (u + strata).remainder(1.0)
    order = torch.randperm(count, generator=generator, device=device)
    u_B = u_B[order].float()
    if law == "uniform":
        return u_B
    if law == "beta":
        # Beta(a, 1) has the inverse distribution function u^(1/a); float32 may round to 1.
        return (1 - u_B.pow(1 / 1.5).mul(0.999).add(0.001)).clamp(0.0, 1.0)
    raise ValueError(f"flow-time law {law!r} is unknown; expected 'uniform' or 'beta'")


def integrate(
    velocity: VelocityField, noise: Tensor, steps: int, method: Integrator = "euler"
) -> Tensor:
    """Integrate a velocity field from noise (r = 0) to data (r = 1).

    Args:
        velocity: Velocity field that maps (x_r (B, *D), r (B,)) to a velocity (B, *D).
        noise: Start points (B, *D).
        steps: Number of equal steps.
        method: ``euler`` (one call of the field per step), ``midpoint`` (two calls) or ``rk4``
            (the classical Runge-Kutta method, four calls).

    Raises:
        ValueError: ``steps`` is below 1, or the method is unknown.
    """
    if steps < 1:
        raise ValueError(f"integration steps must be at least 1, found {steps}")
    if method not in INTEGRATORS:
        raise ValueError(f"integrator {method!r} is unknown; expected one of {INTEGRATORS}")
    x = noise
    dr = 1.0 / steps
    # ``integration_times`` lists the times of these calls.
    for step in range(steps):
        r_B = noise.new_full(noise.shape[:1], step * dr)
        first = velocity(x, r_B)
        if method == "euler":
            x = x + dr * first
            continue
        second = velocity(x + 0.5 * dr * first, r_B + 0.5 * dr)
        if method == "midpoint":
            x = x + dr * second
            continue
        third = velocity(x + 0.5 * dr * second, r_B + 0.5 * dr)
        fourth = velocity(x + dr * third, r_B + dr)
        x = x + dr / 6 * (first + 2 * second + 2 * third + fourth)
    return x


def integration_times(steps: int, method: Integrator, like: Tensor) -> Tensor:
    """List the flow times (K,) at which ``integrate`` calls the field, in the order of the calls.

    Args:
        steps: Number of equal steps.
        method: Integration method.
        like: Tensor whose device and type the times get.
    """
    dr = 1.0 / steps
    first = like.new_tensor([step * dr for step in range(steps)])
    if method == "euler":
        return first
    middle = first + 0.5 * dr
    of_step = [first, middle] if method == "midpoint" else [first, middle, middle, first + dr]
    return torch.stack(of_step, dim=1).flatten()


def time_features(
    r: Tensor, width: int, max_period: float = 4.0, min_period: float = 4e-3
) -> Tensor:
    """Encode flow times (...) as sines and cosines (..., width) of geometrically spaced periods.

    Raises:
        ValueError: ``width`` is odd.
    """
    if width % 2:
        raise ValueError(f"time feature width must be even, found {width}")
    fraction = torch.linspace(0.0, 1.0, width // 2, device=r.device, dtype=r.dtype)
    period = min_period * (max_period / min_period) ** fraction
    angle = 2 * math.pi * r[..., None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
