"""One thread answers waiting requests in batches, and no answer depends on other requests."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from actionprior.chunk_planner import ChunkRequest, ExecutedStep, Memory
from actionprior.policy import Policy
from actionprior.serving.batching import Answer, Batcher
from tests.helpers.policies import observation, tiny_network
from tests.helpers.robots import delta_arm

ARM = delta_arm()


class Held:
    """A batcher whose policy waits for a signal."""

    def __init__(self, policy: Policy, max_batch: int = 16, max_bytes: int = 2**24) -> None:
        self.go = threading.Event()
        self.sizes: list[int] = []
        self.plain = policy.planner.predict
        policy.planner.predict = self.predict  # type: ignore[method-assign]  # a spy
        self.policy = policy
        self.batcher = Batcher(policy.planner, max_batch, max_bytes, self.sizes.append)

    def predict(self, request: ChunkRequest) -> np.ndarray:
        assert self.go.wait(30)
        return self.plain(request)

    def all(self, asked: list[tuple[Memory, dict[str, Any], Any]]) -> list[Answer]:
        """Answers; the first is asked by itself, the others wait for it."""
        futures = []
        for memory, seen, committed in asked:
            memory.instruction = seen["task"]
            futures.append(
                self.batcher.submit(memory, self.policy.check_observation(seen), committed)
            )
            while not self.sizes:  # the first is under way
                time.sleep(0.001)
        self.go.set()
        answers = [future.result(30) for future in futures]
        self.batcher.close()
        return answers


def memory_of(seed: int) -> Memory:
    """With so many past steps as the seed says, from none to all."""
    past = [
        ExecutedStep(np.full(8, 0.1 * k, np.float32), np.full(8, -0.1 * k, np.float32))
        for k in range(9)
    ]
    return Memory(seed, 4, pairs=past[: seed % 6])


def answer_of(policy: Policy, seed: int, seen: dict[str, Any]) -> np.ndarray:
    policy.memory = memory_of(seed)
    return policy.predict_chunk(seen)


def test_requests_in_one_batch_get_the_chunks_of_single_requests() -> None:
    policy = Policy(tiny_network())
    seen = [observation(ARM, k) for k in range(7)]
    expected = [answer_of(policy, k, seen[k]) for k in range(7)]
    held = Held(policy, max_batch=4)
    answers = held.all([(memory_of(k), seen[k], None) for k in range(7)])
    assert held.sizes == [1, 4, 2]
    assert [answer.batch for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
    np.testing.assert_array_equal(answers[0].actions, expected[0])
    for answer, right in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.actions, right, atol=1e-5)


def test_images_of_another_size_and_other_steps_under_way_do_not_share() -> None:
    policy = Policy(tiny_network(prefix_steps=2))
    small = observation(ARM, 1)
    small["observation.images.front"] = small["observation.images.front"][:32, :32]
    under_way = [np.full((d, 8), 0.1 * d, np.float32) for d in range(4)]
    asked = [
        (observation(ARM, 0), None),
        (observation(ARM, 2), None),
        (small, None),
        (observation(ARM, 3), under_way[1]),
        (observation(ARM, 4), None),
        (observation(ARM, 5), under_way[3]),
        (observation(ARM, 6), under_way[1]),
    ]
    expected = []
    for k, (seen, committed) in enumerate(asked):
        policy.memory = memory_of(k)
        expected.append(
            policy.planner.predict(policy._request(policy.check_observation(seen), committed))[0]
        )
    held = Held(policy)
    answers = held.all([(memory_of(k), seen, steps) for k, (seen, steps) in enumerate(asked)])
    assert held.sizes == [1, 2, 1, 2, 1]
    for answer, right in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.actions, right, atol=1e-5)
    np.testing.assert_allclose(answers[5].actions[:3], under_way[3], atol=1e-5)


def test_large_images_do_not_pile_up() -> None:
    held = Held(Policy(tiny_network()), max_bytes=2 * 40 * 48 * 3)
    held.all([(Memory(k, 4), observation(ARM, k), None) for k in range(6)])
    assert held.sizes == [1, 2, 2, 1]


def test_a_failing_request_does_not_fail_the_others() -> None:
    policy = Policy(tiny_network())
    expected = [answer_of(policy, k, observation(ARM, k)) for k in range(4)]
    held = Held(policy)
    plain = held.plain

    def fails_at_two(question: ChunkRequest) -> np.ndarray:
        if "fail" in question.observation.task:
            raise RuntimeError("out of memory")
        return plain(question)

    held.plain = fails_at_two
    memories = [memory_of(k) for k in range(4)]
    futures = []
    for k, memory in enumerate(memories):
        memory.instruction = "fail" if k == 2 else observation(ARM, k)["task"]
        futures.append(held.batcher.submit(memory, policy.check_observation(observation(ARM, k))))
        while not held.sizes:
            time.sleep(0.001)
    held.go.set()
    with pytest.raises(RuntimeError, match="out of memory"):
        futures[2].result(30)
    for k in (0, 1, 3):
        np.testing.assert_allclose(futures[k].result(30).actions, expected[k], atol=1e-5)
    assert [memories[k].plans for k in (0, 1, 3)] == [1, 1, 1]
    held.batcher.close()
