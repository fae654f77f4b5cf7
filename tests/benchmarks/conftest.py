"""Fixture that rolls out random motions of any robot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from actionprior.batch import Observation
from actionprior.embodiment import Embodiment
from actionprior.rollout import ObservationMap, RolloutResult, rollout
from tests.helpers.environments import Jitter


@pytest.fixture
def jitter() -> Callable[..., tuple[RolloutResult, list[Observation]]]:
    """Roll out random motions of a robot in an environment."""

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
