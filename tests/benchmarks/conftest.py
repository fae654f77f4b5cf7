"""A policy of random motions for any robot, to really step an environment through a rollout."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from actionprior.batch import Observation
from actionprior.embodiment import Embodiment
from actionprior.rollout import ObservationMap, RolloutResult, rollout


class Jitter:
    """Stays where it is, or nearly: small random changes around the chunk's reference."""

    chunk_length = 4
    history_length = 2

    def __init__(self, robot: Embodiment) -> None:
        self.embodiments = [robot]
        self.seen: list[Observation] = []

    def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
        self.seen.append(observation)
        return observation.reference_BA[:, None] + 0.1 * noise_BHA


@pytest.fixture
def jitter() -> Callable[..., tuple[RolloutResult, list[Observation]]]:
    """Rolls a robot out at random in an environment."""

    def run(
        robot: Embodiment, env_id: str, **changes: Any
    ) -> tuple[RolloutResult, list[Observation]]:
        policy = Jitter(robot)
        arguments: dict[str, Any] = {
            "episodes": 1,
            "observation_map": ObservationMap(),
            "embodiment": robot.name,
            "num_envs": 1,
            "execute_steps": 4,
            "max_steps": 6,
        }
        with torch.no_grad():
            result = rollout(policy, env_id, **(arguments | changes))
        return result, policy.seen

    return run


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"the extra {extra!r} is not installed")
