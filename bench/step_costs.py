"""Memory, communication and time of a training step on many GPUs, by formulas.

Sources: bytes per parameter and a ring's traffic, arXiv 1910.02054, Sec. 3 and 7; operations per
parameter and token, arXiv 2001.08361, Sec. 2.1; activations, arXiv 2205.05198, Sec. 4.1.
"""

from dataclasses import dataclass
from typing import NamedTuple

BYTES = 4  # per weight, gradient or moment: all are stored in 32 bits
HALF = 2  # per activation under bf16-mixed
# Bytes of activations per layer, token and width, with fused attention. The source has 34. Under
# autocast the values between layers stay in 32 bits, and `python -m bench.train` found 1.29 times
# as much.
ACTIVATION_BYTES = 44


@dataclass(frozen=True)
class LayerStack:
    """A stack of transformer layers in one training step."""

    parameters: float
    tokens: float  # per sample
    layers: int
    width: int
    trained: bool = True


@dataclass(frozen=True)
class Machine:
    """Speed of a GPU per second: an H100 in nodes of eight."""

    operations: float = 2.2e14  # as `python -m bench.train` found for Stage 1; the rest is assumed
    inside: float = 2e11  # bytes that a GPU sends to others of its node
    between: float = 5e10  # bytes that a GPU sends to other nodes
    node: int = 8


class Costs(NamedTuple):
    """Memory, traffic and time of one GPU in one step."""

    state_bytes: float  # weights, gradients, moments
    activation_bytes: float
    traffic_bytes: float  # sent
    compute_seconds: float
    traffic_seconds: float


def state_bytes(parts: list[LayerStack], processes: int, sharded: bool) -> float:
    """Compute the bytes of weights, gradients and moments in one process.

    All weights have 32 bits. Frozen ones have neither gradients nor moments.

    Args:
        parts: Stacks of layers of the model.
        processes: Processes that train together.
        sharded: FSDP2 instead of DDP.
    """
    total = sum(p.parameters * BYTES * (4 if p.trained else 1) for p in parts)
    return total / processes if sharded else total


def traffic_bytes(parts: list[LayerStack], processes: int, sharded: bool) -> float:
    """Compute the bytes that a process sends in one step.

    DDP reduces gradients over a ring. FSDP2 gathers weights in the forward pass and, for trained
    parts, in the backward pass, and scatters gradients. Weights outside of the repeated layers are
    gathered only once, which is neglected here.

    Args:
        parts: Stacks of layers of the model.
        processes: Processes that train together.
        sharded: FSDP2 instead of DDP.
    """
    ring = (processes - 1) / processes
    if not sharded:
        return sum(2 * ring * p.parameters * BYTES for p in parts if p.trained)
    return sum(ring * p.parameters * BYTES * (3 if p.trained else 1) for p in parts)


def costs(
    parts: list[LayerStack],
    processes: int,
    batch: int,
    sharded: bool,
    checkpointed: bool,
    machine: Machine,
) -> Costs:
    """Compute the costs of one GPU in one step, without overlap of compute and traffic.

    Args:
        parts: Stacks of layers of the model.
        processes: Processes that train together, one per GPU.
        batch: Samples per GPU.
        sharded: FSDP2 instead of DDP.
        checkpointed: Recompute the activations of each layer in the backward pass.
        machine: Speed of the GPUs and their connections.
    """
    state = state_bytes(parts, processes, sharded)
    if sharded:  # plus the gathered layer, and the next one
        state += 2 * max(p.parameters / p.layers for p in parts) * BYTES
    stored, operations = 0.0, 0.0
    for p in parts:
        inputs = HALF * p.tokens * p.width * batch
        inner = ACTIVATION_BYTES * p.tokens * p.width * batch
        if p.trained:
            stored += p.layers * inputs + inner if checkpointed else p.layers * inner
        passes = (8 if checkpointed else 6) if p.trained else 2
        operations += passes * p.parameters * p.tokens * batch
    traffic = traffic_bytes(parts, processes, sharded)
    speed = machine.inside if processes <= machine.node else machine.between
    return Costs(state, stored, traffic, operations / machine.operations, traffic / speed)
