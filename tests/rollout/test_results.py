"""Test success rates of groups of environments."""

import pytest
import torch

from actionprior.benchmarks import DIFFICULTY_GROUPS
from actionprior.rollout import EpisodeResult, RolloutResult, group_rates, mean_of_groups


def played(env_id: str, successes: int, of: int = 4) -> RolloutResult:
    state = torch.zeros(1, 1).numpy()
    episodes = [
        EpisodeResult(k, "go", k < successes, 0.0, 1, 0.0, 0.0, [0.1], state) for k in range(of)
    ]
    return RolloutResult(env_id, episodes)


def test_small_groups_count_as_large_ones() -> None:
    easy = [played(env_id, 4) for env_id in DIFFICULTY_GROUPS["metaworld/easy"][:3]]
    hard = [played(DIFFICULTY_GROUPS["metaworld/hard"][0], 1)]
    rates = group_rates([*easy, *hard, played("CartPole-v1", 0)], DIFFICULTY_GROUPS)
    assert [(r.name, r.success_rate, r.played, r.size) for r in rates] == [
        ("metaworld/easy", 1.0, 3, 28),
        ("metaworld/hard", 0.25, 1, 6),
    ]
    assert mean_of_groups(rates) == pytest.approx((1 + 0.25) / 2)


def test_environments_without_groups_have_no_rates() -> None:
    assert group_rates([played("CartPole-v1", 2)], DIFFICULTY_GROUPS) == []


def test_counts_of_the_guard_are_summed_if_something_was_compared() -> None:
    result = played("lab/Push-v0", 2)
    assert result.guard_counts == {}
    assert not any("guard" in key for key in result.metrics())
    for k, episode in enumerate(result.episodes):
        episode.guard_counts = {"state": k, "limit": 1, "step": 0}
    assert result.guard_counts == {"state": 6, "limit": 4, "step": 0}
    assert result.metrics()["guard_state"] == 6.0
    assert result.to_dict()["episodes"][3]["guard_counts"]["state"] == 3
