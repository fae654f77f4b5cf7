"""How a policy is rolled out while it is diagnosed."""

from dataclasses import dataclass, field
from typing import Any

from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.rollout import DEFAULT_SEED, ObservationMap
from actionprior.rollout.robot_env import RobotEnv, find_spec, make_robot_env

SUITE = "actionprior/"
"""First part of the suite's environment ids."""


@dataclass(frozen=True)
class Simulator:
    """Environments of one robot, and how a policy acts in them.

    Attributes:
        env_ids: Gymnasium ids.
        observation_map: Map from the robot's features to the environments' observations.
        embodiment: Name of the robot, or a name for each environment id.
        seed: Seed of the first episode.
        execute_steps: Actions executed of each chunk.
        max_steps: Time limit that replaces the environments'.
        env_kwargs: Arguments of ``gymnasium.make``.
        success_key: Key of ``info`` that reports success.
        image_shape: Size to which the images are brought. None keeps their own.
    """

    env_ids: list[str]
    observation_map: ObservationMap
    embodiment: str | dict[str, str]
    seed: int = DEFAULT_SEED
    execute_steps: int = 8
    max_steps: int | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    success_key: str | None = None
    image_shape: ImageShape | None = None

    def of_robot(self, name: str) -> list[str]:
        """List the environments of a robot."""
        return [env_id for env_id in self.env_ids if self.robot_in(env_id) == name]

    def robot_in(self, env_id: str) -> str:
        """Name of the robot in an environment."""
        return self.embodiment if isinstance(self.embodiment, str) else self.embodiment[env_id]

    def make(self, env_id: str, robot: Embodiment, look_every: int = 1) -> RobotEnv:
        """Make one environment.

        Raises:
            RolloutError: The environment does not fit the robot.
        """
        return make_robot_env(
            find_spec(env_id),
            robot,
            self.observation_map,
            self.success_key,
            frozenset(),
            self.max_steps,
            self.env_kwargs,
            look_every,
            self.image_shape,
        )
