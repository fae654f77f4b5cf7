"""What a client may ask, and what a session remembers of it."""

from typing import Any

import numpy as np
import pytest

from actionprior.chunk_planner import Memory
from actionprior.errors import PolicyError
from actionprior.policy import Policy
from actionprior.serving.request import check_chunk, read_request, remember
from tests.helpers.policies import limited, observation, tiny_network
from tests.helpers.robots import delta_arm

ARM = delta_arm()


def past(steps: int, start: int = 0) -> dict[str, Any]:
    values = start + np.arange(steps, dtype=np.float32)[:, None] + np.zeros((1, 8), np.float32)
    return {"executed": values, "states": -values}


def test_openpis_prompt_is_the_task() -> None:
    asked = observation(ARM)
    asked["prompt"] = asked.pop("task")
    request = read_request(asked, ARM, 12)
    assert request.sensed.task == asked["prompt"]
    assert (request.seed, request.executed, request.committed) == (None, [], None)


def test_lists_of_numbers_are_vectors() -> None:
    asked = observation(ARM)
    asked["observation.state"] = [0, 1, 2.5, 0, 0, 0, 0, 2**64 - 1]
    state = read_request(asked, ARM, 12).sensed.state
    np.testing.assert_array_equal(state, np.float32(asked["observation.state"]))


def test_only_so_much_of_the_past_is_kept() -> None:
    memory = Memory(3, history_length=4)
    memory = remember(memory, read_request(observation(ARM) | past(3), ARM, 12))
    memory = remember(memory, read_request(observation(ARM) | past(3, 3), ARM, 12))
    assert [pair.action[0] for pair in memory.pairs] == [2, 3, 4, 5]
    assert [pair.state[0] for pair in memory.pairs] == [-2, -3, -4, -5]
    memory = remember(Memory(0, 0), read_request(observation(ARM) | past(3), ARM, 12))
    assert memory.history == []
    memory = remember(memory, read_request(observation(ARM), ARM, 12))
    assert memory.last_action is not None  # a guard compares the next action with it
    assert memory.last_action[0] == 2


@pytest.mark.parametrize(("reset", "seed"), [(True, 0), (9, 9), (np.int64(5), 5), (np.True_, 0)])
def test_a_reset_begins_an_episode_with_the_past_that_comes_with_it(reset: Any, seed: int) -> None:
    memory = remember(Memory(3, 4), read_request(observation(ARM) | past(3), ARM, 12))
    memory.plans = 7
    request = read_request(observation(ARM) | past(1, 8) | {"reset": reset}, ARM, 12)
    memory = remember(memory, request)
    assert (memory.seed, memory.plans) == (seed, 0)
    assert [pair.action[0] for pair in memory.pairs] == [8]
    unchanged = remember(memory, read_request(observation(ARM) | {"reset": False}, ARM, 12))
    assert unchanged is memory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation/image": 1, "wrist": 2}, "unknown keys 'observation/image', 'wrist'; robot"),
        ({str(k): k for k in range(50)}, "and 42 more; robot"),
        ({"prompt": "reach"}, "'task' and 'prompt' mean the same"),
        ({"task": None}, "'task' is a NoneType"),
        ({"observation.state": {"a": 1}}, "'observation.state' is a dict of other things"),
        ({"observation.state": [1.0, 2.0]}, r"of shape \(2,\), expected 8 numbers"),
        ({"observation.state": np.full(8, np.inf)}, "not finite at joint_1"),
        ({"reset": "yes"}, "'reset' is 'yes', expected true, false or a seed"),
        ({"reset": -1}, "'reset' is -1"),
        ({"reset": np.ones((3, 3))}, "'reset' is a ndarray"),
        ({"reset": "a\nb" * 50}, r"'reset' is 'a\\nba"),
        ({"reset": 1.0}, r"'reset' is 1\.0"),
        ({"executed": np.zeros((2, 8))}, "go together; found one"),
        ({"states": np.zeros((2, 8))}, "go together; found one"),
        (past(2) | {"states": np.zeros((3, 8))}, "has 2 steps and 'states' 3"),
        (past(2) | {"states": np.zeros((2, 7))}, r"'states' has shape \(2, 7\), expected \(steps"),
        (past(2) | {"executed": np.full((2, 8), np.nan)}, "'executed' is not finite at step 0"),
        ({"committed": np.zeros(8)}, r"'committed' has shape \(8,\)"),
        ({"committed": [0.0] * 8}, r"'committed' has shape \(8,\)"),
        ({"committed": np.zeros((2, 8), bool)}, "'committed' is a bool"),
        ({"committed": "none"}, "'committed' is a str"),
        ({"committed": np.zeros((0, 8))}, "has 0 actions, expected 1 to 11"),
        ({"committed": np.zeros((12, 8))}, "has 12 actions, expected 1 to 11"),
    ],
)
def test_wrong_messages_are_refused_in_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        read_request(observation(ARM) | change, ARM, 12)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_a_missing_key_is_named() -> None:
    asked = observation(ARM)
    del asked["observation.images.front"]
    with pytest.raises(PolicyError, match=r"lacks 'observation\.images\.front'"):
        read_request(asked, ARM, 12)


def test_actions_under_way_stay_unchanged_and_the_next_is_compared_with_them() -> None:
    guard = Policy(limited(tiny_network(), 0.5), guard="clip", guard_margin=0.0).guard
    guard = guard.same_limits(lambda kind, text: None)
    chunk = np.full((12, 8), 0.9, dtype=np.float32)
    request = read_request(observation(ARM) | {"committed": chunk[:3]}, ARM, 12)
    checked = check_chunk(chunk, guard, request, None)
    np.testing.assert_array_equal(checked[:3], chunk[:3])
    np.testing.assert_allclose(checked[3:], 0.5, atol=1e-4)
    assert guard.counts == {"state": 0, "limit": 9, "step": 0}
