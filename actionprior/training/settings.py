"""Grouped arguments of the two LightningModules, and their flat form in checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from actionprior.errors import UserError
from actionprior.flow_matching import Integrator, TimeLaw

WhenExtended = Literal["stretch", "constant", "restart"]


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, its schedule, and the steps that it skips.

    Attributes:
        final_learning_rate: Learning rate at the end of the cosine decay (paper: 5e-7).
        warmup_steps: Steps of linear warm-up (paper: 1,000).
        weight_decay: Weight decay of matrices; biases, norms and single vectors are not decayed.
        skip_bad_steps: Consecutive steps with a NaN or infinite loss or gradient that are skipped
            before the run ends with an error.
        spike_factor: A loss above this many running medians counts as bad, too; 0 turns this off.
        when_extended: What a resumed run of another length does: ``stretch`` continues the cosine
            over the new length, ``constant`` keeps the final rate after the earlier end, and
            ``restart`` warms up again from the checkpoint's step.
    """

    final_learning_rate: float = 5e-6
    warmup_steps: int = 100
    weight_decay: float = 0.01
    skip_bad_steps: int = 10
    spike_factor: float = 0.0
    when_extended: WhenExtended = "stretch"


@dataclass(frozen=True)
class PolicyOptimizerSettings(OptimizerSettings):
    """AdamW, its schedule, and the steps that it skips, with the defaults of Stage 2.

    Attributes:
        final_learning_rate: Learning rate at the end of the cosine decay (paper: 2.5e-8).
        warmup_steps: Steps of linear warm-up (paper: 5,000).
    """

    final_learning_rate: float = 1e-6


@dataclass(frozen=True)
class FlowSettings:
    """Training and integration of the flow that makes action chunks.

    Attributes:
        time_law: Distribution of the flow time in training, ``uniform`` or ``beta``.
        latent_noise: Length of the noise that is added to z on the sphere while training.
        noise_repeats: Draws of noise and flow time per window and training step.
        integration_steps: Number of integration steps from noise to a chunk.
        integrator: Integration method, ``euler``, ``midpoint`` or ``rk4``.
    """

    time_law: TimeLaw = "uniform"
    latent_noise: float = 0.0
    noise_repeats: int = 1
    integration_steps: int = 10
    integrator: Integrator = "euler"


@dataclass(frozen=True)
class PolicyFlowSettings(FlowSettings):
    """Training and integration of the flow, with the defaults of Stage 2.

    Attributes:
        latent_noise: Length of the noise that is added to z in L_recon.
        noise_repeats: Draws of noise and flow time per observation and training step.
        prefix_steps: Largest number of first steps of a chunk that the decoder is shown without
            noise, and that L_pred excludes. The policy can then plan a chunk while it executes the
            previous one (arXiv 2512.05964). 0 turns this off.
    """

    noise_repeats: int = 4
    prefix_steps: int = 0


@dataclass(frozen=True)
class FusionSize:
    """Size and training of the fusion transformer.

    Attributes:
        width: Token width.
        depth: Number of transformer blocks.
        heads: Number of attention heads.
        state_dropout: Share of observations whose state is hidden from the fusion in training.
        keyframe_weight: Weight of an auxiliary loss: z′ also predicts the robot's state at the
            next keyframe, when a gripper switches or the episode ends. 0 turns it off.

    Raises:
        UserError: ``keyframe_weight`` is negative or infinite.
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    state_dropout: float = 0.0
    keyframe_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.keyframe_weight < float("inf"):
            raise UserError(f"fusion.keyframe_weight is {self.keyframe_weight}; expected 0 or more")


PRIOR_GROUPS: dict[str, type] = {"optimizer": OptimizerSettings, "flow": FlowSettings}
POLICY_GROUPS: dict[str, type] = {
    "optimizer": PolicyOptimizerSettings,
    "flow": PolicyFlowSettings,
    "fusion": FusionSize,
}


def flat_settings(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401  arguments of any type
    """Replace each group by its members: the plain data that checkpoints hold since 0.1.0."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        flat |= asdict(value) if name in POLICY_GROUPS else {name: value}
    return flat


def grouped_settings(
    flat: Mapping[str, Any], groups: Mapping[str, type] = POLICY_GROUPS
) -> dict[str, Any]:
    """Put flat settings into their groups: arguments of the module."""
    rest, arguments = dict(flat), dict[str, Any]()
    for name, group in groups.items():
        members = [field.name for field in fields(group) if field.name in rest]
        arguments[name] = group(**{member: rest.pop(member) for member in members})
    return rest | arguments
