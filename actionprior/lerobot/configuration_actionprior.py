"""LeRobot's configuration of an ActionPrior policy, a part of the exported ``config.json``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig, LRSchedulerConfig
from lerobot.utils.constants import ACTION

from actionprior.embodiment import Embodiment
from actionprior.errors import UserError

ANY_SIZE = (3, 224, 224)
"""Image shape in the configuration. LeRobot requires one, but the trunks accept every size."""


@PreTrainedConfig.register_subclass("actionprior")
@dataclass
class ActionPriorConfig(PreTrainedConfig):  # type: ignore[misc]  # LeRobot has no types
    """LeRobot configuration of an ActionPrior policy.

    Attributes:
        actionprior: Description of the network (``checkpoints/folder.py``). If empty, a new policy
            is created for the dataset that it is trained on.
        chunk_size: Steps H of a chunk. Fixed for an exported policy.
        n_action_steps: Actions executed of each chunk. 0 selects the exported value, or else 8, or
            fewer if the chunk is shorter.
        seed: Seed of the first episode's flow noise. The k-th episode uses ``seed + k``. None
            selects torch's seed, such as lerobot-eval's ``--seed``.
        default_task: Instruction to use if LeRobot gives none.
        state_feature_names: Names of the entries of LeRobot's state vectors, in order.
        action_feature_names: Names of the entries of LeRobot's action vectors, in order.
        compile_model: Run trunk, fusion and decoder through ``torch.compile``. lerobot-rollout
            sets it for ``--use_torch_compile``.
        guard: What happens to actions beyond the recorded limits, and to steps larger than any
            recorded: ``warn``, ``clip`` or ``off``. Empty selects the exported value, or else
            ``warn``.
        guard_margin: Share of the recorded range by which limits and steps may be exceeded. None
            selects the exported value, or else 0.1.
        noise_repeats: Draws of noise and flow time per observation and training step.
        optimizer_lr: Learning rate of AdamW.
        optimizer_weight_decay: Weight decay of AdamW.
    """

    push_to_hub: bool = False  # LeRobot's default would publish the trained policy
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
    guard: str = ""
    guard_margin: float | None = None
    noise_repeats: int = 4
    optimizer_lr: float = 3e-4
    optimizer_weight_decay: float = 0.01

    @property
    def observation_delta_indices(self) -> None:
        """None: only the current observation. For a past, LeRobot would also read its images."""

    @property
    def action_delta_indices(self) -> list[int]:
        """Indices of the steps of a chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """None, since no reward is used."""

    def get_optimizer_preset(self) -> AdamWConfig:
        """Return AdamW's settings, with gradients clipped to norm 1."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=(0.9, 0.95),
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=1.0,
        )

    def get_scheduler_preset(self) -> LRSchedulerConfig | None:
        """Return None: the learning rate is constant."""
        return None

    def validate_features(self) -> None:
        """Check nothing, since the policy itself reports missing features."""

    def describe_robot(
        self, robot: Embodiment, states: Sequence[str] = (), actions: Sequence[str] = ()
    ) -> None:
        """Set LeRobot's input and output features for a robot.

        Args:
            robot: Robot that the policy acts for.
            states: Names of the entries of LeRobot's state vectors. Empty selects the robot's
                state features, in its order.
            actions: Names of the entries of LeRobot's action vectors. Empty selects the robot's
                action features, in its order.

        Raises:
            UserError: LeRobot's vectors lack a feature of the robot, or its actions include one
                that the robot does not have.
        """
        states = list(states or robot.state_features)
        actions = list(actions or robot.action_features)
        for what, needed, given in (
            ("state", robot.state_features, states),
            ("action", robot.action_features, actions),
        ):
            if missing := [name for name in needed if name not in given]:
                raise UserError(
                    f"LeRobot's {what} vector lacks {missing} of robot {robot.name!r}; "
                    f"it holds {given}"
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
