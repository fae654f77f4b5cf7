"""What LeRobot is told of a policy of ours: the LeRobot part of an exported ``config.json``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig, LRSchedulerConfig
from lerobot.utils.constants import ACTION

from actionprior.embodiment import Embodiment
from actionprior.errors import UserError

ANY_SIZE = (3, 224, 224)
"""Of images: LeRobot wants a shape, and our trunks take every size."""


@PreTrainedConfig.register_subclass("actionprior")
@dataclass
class ActionPriorConfig(PreTrainedConfig):  # type: ignore[misc]  # LeRobot has no types
    """A policy of ours among LeRobot's.

    Attributes:
        actionprior: our own description of the network (``networks/policy_folder.py``); empty: a
            new policy is made for the dataset that it is trained on.
        chunk_size: steps H of a chunk; an exported policy's is fixed.
        n_action_steps: actions of a chunk before the next is planned; 0: as exported, else 8.
        seed: of the flow noise of the first episode, the k-th has ``seed + k``; None: what torch
            was seeded with, such as lerobot-eval's ``--seed``.
        default_task: the instruction where LeRobot gives none.
        state_feature_names: entries of LeRobot's state vectors, in their order.
        action_feature_names: entries of LeRobot's action vectors, in their order.
        compile_model: run trunk, fusion and decoder through ``torch.compile``; lerobot-rollout sets
            it for ``--use_torch_compile``.
        noise_repeats: draws of noise and flow time an observation and training step.
        optimizer_lr: learning rate of AdamW.
        optimizer_weight_decay: AdamW's.
    """

    push_to_hub: bool = False  # LeRobot's own default publishes what was trained
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind.value: NormalizationMode.IDENTITY for kind in FeatureType}
    )
    actionprior: dict[str, Any] = field(default_factory=dict)
    chunk_size: int = 15
    n_action_steps: int = 0
    seed: int | None = None
    default_task: str = ""
    state_feature_names: list[str] = field(default_factory=list)
    action_feature_names: list[str] = field(default_factory=list)
    compile_model: bool = False
    noise_repeats: int = 4
    optimizer_lr: float = 3e-4
    optimizer_weight_decay: float = 0.01

    @property
    def observation_delta_indices(self) -> None:
        """None: the present alone; with a past, LeRobot would read every image of it, too."""

    @property
    def action_delta_indices(self) -> list[int]:
        """Steps of a chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """None: no reward."""

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW, with gradients clipped to length 1."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=(0.9, 0.95),
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=1.0,
        )

    def get_scheduler_preset(self) -> LRSchedulerConfig | None:
        """None: a constant rate."""
        return None

    def validate_features(self) -> None:
        """Nothing: the policy names what it lacks."""

    def describe_robot(
        self, robot: Embodiment, states: Sequence[str] = (), actions: Sequence[str] = ()
    ) -> None:
        """Tell LeRobot what goes in and out.

        Args:
            robot: that the policy acts for.
            states: entries of LeRobot's state vectors; none: the robot's, in its order.
            actions: likewise of its action vectors.

        Raises:
            UserError: a feature of the robot is not among them, or an action is not the robot's.
        """
        states = list(states or robot.state_features)
        actions = list(actions or robot.action_features)
        for what, ours, theirs in (
            ("state", robot.state_features, states),
            ("action", robot.action_features, actions),
        ):
            if missing := [name for name in ours if name not in theirs]:
                raise UserError(
                    f"LeRobot's {what} vector lacks {missing} of robot {robot.name!r}; "
                    f"it holds {theirs}"
                )
        if extra := sorted(set(actions) - set(robot.action_features)):
            raise UserError(
                f"LeRobot's action vector has {extra}, which robot {robot.name!r} does not act on; "
                f"the policy gives {robot.action_features}"
            )
        self.state_feature_names, self.action_feature_names = states, actions
        self.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (len(actions),))}
        self.input_features = {
            key: PolicyFeature(FeatureType.VISUAL, ANY_SIZE) for key in robot.cameras
        }
        if states:
            self.input_features[robot.state_key] = PolicyFeature(FeatureType.STATE, (len(states),))
