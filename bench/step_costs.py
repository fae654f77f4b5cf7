"""Memory, communication and time of a training step on many GPUs, by formulas.

Sources: bytes a parameter and a ring's traffic, arXiv 1910.02054, Sec. 3 and 7; operations a
parameter and token, arXiv 2001.08361, Sec. 2.1; activations, arXiv 2205.05198, Sec. 4.1.
"""

from dataclasses import dataclass
from typing import NamedTuple

BYTES = 4  # of a weight, a gradient or a moment: all are kept in 32 bits
HALF = 2  # of an activation under bf16-mixed
# Of what one layer keeps, a token and width, attention fused. In the source 34; under autocast what
# passes from layer to layer stays in 32 bits, and `python -m bench.train` found 1.29 times as much.
KEPT = 44


@dataclass(frozen=True)
class Part:
    """A stack of transformer layers in one training step."""

    parameters: float
    tokens: float  # that go through it, a sample
    layers: int
    width: int
    trained: bool = True


@dataclass(frozen=True)
class Machine:
    """What a GPU does in a second: an H100 in nodes of eight."""

    operations: float = 2.2e14  # as `python -m bench.train` found for Stage 1; the rest is assumed
    inside: float = 2e11  # bytes that a GPU sends to others of its node
    between: float = 5e10  # bytes that a GPU sends to other nodes
    node: int = 8


class Costs(NamedTuple):
    """Of one GPU, a step."""

    state_bytes: float  # weights, gradients, moments
    activation_bytes: float
    traffic_bytes: float  # sent
    compute_seconds: float
    traffic_seconds: float


def state_bytes(parts: list[Part], processes: int, sharded: bool) -> float:
    """Weights (32 bits, frozen ones too), and gradients and two moments of those that train."""
    whole = sum(p.parameters * BYTES * (4 if p.trained else 1) for p in parts)
    return whole / processes if sharded else whole


def traffic_bytes(parts: list[Part], processes: int, sharded: bool) -> float:
    """What a process sends a step.

    DDP reduces gradients over a ring. FSDP2 gathers weights going forward and, where gradients
    pass, going back, and scatters gradients; what is outside of the repeated layers is gathered
    once, which is neglected here.
    """
    around = (processes - 1) / processes
    if not sharded:
        return sum(2 * around * p.parameters * BYTES for p in parts if p.trained)
    return sum(around * p.parameters * BYTES * (3 if p.trained else 1) for p in parts)


def costs(
    parts: list[Part],
    processes: int,
    batch: int,
    sharded: bool,
    checkpointed: bool,
    machine: Machine,
) -> Costs:
    """Of one GPU with a batch of its own; nothing overlaps here, in a run much of it does."""
    state = state_bytes(parts, processes, sharded)
    if sharded:  # and the layer that is gathered, with the one that comes
        state += 2 * max(p.parameters / p.layers for p in parts) * BYTES
    kept, operations = 0.0, 0.0
    for p in parts:
        inputs = HALF * p.tokens * p.width * batch
        inner = KEPT * p.tokens * p.width * batch
        if p.trained:
            kept += p.layers * inputs + inner if checkpointed else p.layers * inner
        passes = (8 if checkpointed else 6) if p.trained else 2
        operations += passes * p.parameters * p.tokens * batch
    traffic = traffic_bytes(parts, processes, sharded)
    speed = machine.inside if processes <= machine.node else machine.between
    return Costs(state, kept, traffic, operations / machine.operations, traffic / speed)
