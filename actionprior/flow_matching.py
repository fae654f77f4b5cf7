"""Conditional flow matching on straight paths.

One convention everywhere: flow time ``r = 0`` is noise, ``r = 1`` is data
(arXiv 2606.26095, Sec. III-B). Code that runs the other way is converted at its border.

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
    """A point on the path and the velocity to be learnt there."""

    x_r: Tensor  # (B, *D)
    velocity: Tensor  # (B, *D)


def expand_time(r_B: Tensor, like: Tensor) -> Tensor:
    """Shape ``(B,)`` times so that they broadcast over the trailing axes of ``like``.

    Raises:
        ValueError: ``r_B`` is not one time per batch row.
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
        data: (B, *D), normalised.
        noise: (B, *D), standard normal.
        r_B: (B,) flow times in [0, 1].
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

    ``uniform`` covers [0, 1) evenly. ``beta`` is π0's law (arXiv 2410.24164, App. B) in our
    direction: noise level 1 - r ~ Beta(1.5, 1) scaled to [0.001, 1], so that early, noisy
    times are drawn more often.

    Raises:
        ValueError: unknown law.
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
    """Carry noise (r = 0) to data (r = 1) along a velocity field.

    Args:
        velocity: maps (x_r (B, *D), r (B,)) to a velocity (B, *D).
        noise: (B, *D) start.
        steps: number of equal steps.
        method: ``euler``; ``midpoint``, which calls the field twice a step; or ``rk4``, the
            classical Runge-Kutta method, four times.

    Raises:
        ValueError: ``steps`` < 1 or unknown method.
    """
    if steps < 1:
        raise ValueError(f"integration steps must be at least 1, found {steps}")
    if method not in INTEGRATORS:
        raise ValueError(f"integrator {method!r} is unknown; expected one of {INTEGRATORS}")
    x = noise
    dr = 1.0 / steps
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


def time_features(
    r: Tensor, width: int, max_period: float = 4.0, min_period: float = 4e-3
) -> Tensor:
    """Sine-cosine features of flow times, (...) → (..., width), periods spaced geometrically.

    Raises:
        ValueError: ``width`` is odd.
    """
    if width % 2:
        raise ValueError(f"time feature width must be even, found {width}")
    fraction = torch.linspace(0.0, 1.0, width // 2, device=r.device, dtype=r.dtype)
    period = min_period * (max_period / min_period) ** fraction
    angle = 2 * math.pi * r[..., None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
