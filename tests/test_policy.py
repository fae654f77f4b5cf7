"""Test the policy on a robot: the ways to execute chunks, memory, files and messages."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actionprior.checkpoints.folder import write_folder
from actionprior.checkpoints.reading import CheckpointError
from actionprior.errors import PolicyError, UserError
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import Policy
from tests.helpers.policies import limited, observation, tiny_network
from tests.helpers.robots import delta_arm, plain_arm, position_arm, tool_arm

ARM = delta_arm()


def act(policy: Policy, steps: int, seed: int = 0) -> np.ndarray:
    policy.reset(seed)
    return np.stack([policy.select_action(observation(policy.robot, k)) for k in range(steps)])


def test_execute_steps_actions_of_each_chunk_are_executed() -> None:
    policy = Policy(tiny_network(), execute_steps=3)
    policy.reset(7)
    chunk = policy.predict_chunk(observation(ARM))
    assert chunk.shape == (12, 8)
    done = act(policy, 7, seed=7)
    np.testing.assert_array_equal(done[:3], chunk[:3])
    assert policy.memory.plans == 3
    # The input includes the past: a chunk from the same observation and noise differs.
    fresh = Policy(tiny_network(), execute_steps=3)
    fresh.reset(7)
    fresh.memory.plans = 1
    assert not np.allclose(fresh.predict_chunk(observation(ARM, 3))[:3], done[3:6])


def test_actions_depend_only_on_seed_and_observations() -> None:
    policy = Policy(tiny_network())
    np.testing.assert_array_equal(act(policy, 10), act(policy, 10))
    assert not np.allclose(act(policy, 10), act(policy, 10, seed=1))


@pytest.mark.parametrize("execute", [5, 3])  # with 3, planning starts as soon as a chunk takes over
@pytest.mark.parametrize("robot", [delta_arm(), position_arm(), tool_arm()], ids=lambda r: r.name)
def test_a_delayed_chunk_begins_with_the_committed_actions(robot: Any, execute: int) -> None:
    network = tiny_network([robot], prefix_steps=3)
    policy = Policy(network, execute_steps=execute, delay_steps=3)
    chunks: list[np.ndarray] = []
    plain = policy.planner.predict

    def recorded(request: Any) -> np.ndarray:
        chunks.append(plain(request)[0])
        return chunks[-1][None]

    policy.planner.predict = recorded  # type: ignore[method-assign]  # a spy
    done = act(policy, 18)
    assert len(chunks) >= 3
    # A chunk begins with three actions of the previous one, then takes over.
    for k, chunk in enumerate(chunks[1:3], 1):
        start = execute * k
        np.testing.assert_allclose(chunk[:3], done[start : start + 3], atol=2e-5)
        stop = 3 + execute
        np.testing.assert_array_equal(chunk[3:stop], done[start + 3 : start + stop])


def test_planning_in_the_background_does_not_change_actions() -> None:
    policy = Policy(tiny_network(), execute_steps=4, delay_steps=2)
    fast = act(policy, 20)
    plain, hurry = policy.planner.predict, threading.Event()

    def slow(request: Any) -> np.ndarray:
        hurry.wait(0.05)
        return plain(request)

    policy.planner.predict = slow  # type: ignore[method-assign]  # a spy
    np.testing.assert_array_equal(act(policy, 20), fast)
    assert policy.late_plans > 0  # the robot waited, and the count reports it


def test_an_ensemble_is_the_weighted_mean_of_all_chunks() -> None:
    policy = Policy(tiny_network(), execute_steps=1, ensemble=0.1)
    chunks = []
    plain = policy._chunk

    def recorded(observed: Any) -> np.ndarray:
        chunks.append(plain(observed))
        return chunks[-1]

    policy._chunk = recorded  # type: ignore[method-assign]  # a spy
    done = act(policy, 15)
    for step in (0, 4, 14):
        first = max(0, step - 11)
        planned = np.stack([chunks[k][step - k] for k in range(first, step + 1)])
        weight = np.exp(-0.1 * np.arange(len(planned)))[:, None]
        np.testing.assert_allclose(done[step], (weight * planned).sum(0) / weight.sum(), atol=1e-5)


def test_rotations_are_averaged_across_the_wrap_of_their_vectors() -> None:
    """A tool that points down: π about x and a little more is -π and a little less."""
    robot = tool_arm()
    policy = Policy(tiny_network([robot]), execute_steps=1, ensemble=0.0)
    rolls = [3.13, -3.13, 3.14]

    def planned(_: Any) -> np.ndarray:
        chunk = np.zeros((12, 6), dtype=np.float32)
        chunk[:, robot.action_features.index("roll")] = rolls.pop(0)
        return chunk

    policy._chunk = planned  # type: ignore[method-assign]  # a spy
    done = act(policy, 3)[:, robot.action_features.index("roll")]
    wanted = [3.13, np.pi, (2 * np.pi + 3.14 + 3.13 - 3.13) / 3]
    np.testing.assert_allclose(np.angle(np.exp(1j * (done - wanted))), 0, atol=1e-3)


def test_angles_are_averaged_along_the_shorter_arc() -> None:
    robot = position_arm()
    policy = Policy(tiny_network([robot]), execute_steps=1, ensemble=0.0)
    planned = [3.15, 3.15 - 2 * np.pi + 0.02]  # the robot now reports its angle within ±π
    policy._chunk = lambda _: np.full((12, 6), planned.pop(0), dtype=np.float32)  # type: ignore[method-assign]  # a spy
    done = act(policy, 2)
    np.testing.assert_allclose(done[0], 3.15, atol=1e-5)
    np.testing.assert_allclose(done[1], 3.15 - 2 * np.pi + 0.01, atol=1e-5)


def test_a_failed_background_plan_is_raised_once() -> None:
    policy = Policy(tiny_network(), execute_steps=4, delay_steps=2)
    plain, failing = policy.planner.predict, threading.Event()

    def predict(request: Any) -> np.ndarray:
        if failing.is_set():
            raise RuntimeError("no memory left")
        return plain(request)

    policy.planner.predict = predict  # type: ignore[method-assign]  # a spy
    for step in range(4):
        policy.select_action(observation(ARM, step))
    failing.set()
    for step in (4, 5):  # the current chunk is executed while the plan fails
        policy.select_action(observation(ARM, step))
    with pytest.raises(RuntimeError, match="no memory left"):
        policy.select_action(observation(ARM, 6))
    failing.clear()
    assert np.isfinite(policy.select_action(observation(ARM, 6))).all()
    for step in range(4):
        policy.select_action(observation(ARM, step))
    failing.set()
    policy.select_action(observation(ARM))
    policy.reset()
    failing.clear()
    np.testing.assert_array_equal(act(policy, 10), act(policy, 10))


def test_nan_is_neither_commanded_nor_remembered() -> None:
    policy = Policy(tiny_network())
    beyond = observation(ARM) | {ARM.state_key: np.full(8, 3e38, dtype=np.float32)}
    with pytest.raises(PolicyError, match="the policy's chunk is not finite at joint_1, "):
        policy.select_action(beyond)
    action = policy.select_action(observation(ARM))
    action[2] = np.nan
    with pytest.raises(PolicyError, match=r"the executed action is not finite at joint_3$"):
        policy.executed(action)


def test_your_own_loop_reports_what_it_executed() -> None:
    selecting, own_loop = (Policy(tiny_network(), execute_steps=3) for _ in range(2))
    done = act(selecting, 7)
    own_loop.reset()
    for start in (0, 3):
        chunk = own_loop.predict_chunk(observation(ARM, start))
        np.testing.assert_array_equal(chunk[:3], done[start : start + 3])
        states = [observation(ARM, start + k)[ARM.state_key] for k in range(3)]
        own_loop.remember(np.stack(states), chunk[:3])
    np.testing.assert_array_equal(own_loop.predict_chunk(observation(ARM, 6))[0], done[6])
    with pytest.raises(
        PolicyError, match=r"shapes \(2, 8\) and \(3, 8\), expected \(2, 8\) and \("
    ):
        own_loop.remember(np.zeros((2, 8)), np.zeros((3, 8)))
    with pytest.raises(PolicyError, match="the states to remember are not finite"):
        own_loop.remember(np.full((1, 8), np.inf), np.zeros((1, 8)))


def test_a_robot_without_state_needs_none_in_the_observation() -> None:
    blind = replace(delta_arm(), state=[])
    policy = Policy(tiny_network([blind]))
    seen = observation(blind)
    del seen[blind.state_key]
    assert policy.select_action(seen).shape == (8,)


def test_a_reported_action_replaces_the_selected_one() -> None:
    policy = Policy(tiny_network())
    with pytest.raises(PolicyError, match="before the first select_action"):
        policy.executed(np.zeros(8))
    action = policy.select_action(observation(ARM))
    policy.executed(action / 2)
    np.testing.assert_array_equal(policy.memory.pairs[-1].action, action / 2)
    with pytest.raises(PolicyError, match=r"shape \(7,\), expected \(8,\)"):
        policy.executed(np.zeros(7))
    for step in range(30):
        policy.select_action(observation(ARM, step))
    assert len(policy.memory.pairs) <= policy.network.history_length + 1  # memory stays bounded


def test_a_changed_description_is_rejected(tmp_path: Path) -> None:
    write_folder(tiny_network(), {"actionprior": {"execute_steps": 5}}, tmp_path)
    file = tmp_path / "config.json"
    written = file.read_text()
    config = json.loads(written)
    del config["actionprior"]["content_sha256"]
    for content in (
        written.replace('"execute_steps": 5', '"execute_steps": 7'),
        json.dumps(config),
    ):
        file.write_text(content)
        with pytest.raises(CheckpointError, match="is damaged: its part 'actionprior'"):
            Policy.load(tmp_path)
    file.write_text(written)
    assert Policy.load(tmp_path).execute_steps == 5


def test_an_exported_folder_acts_as_the_network(tmp_path: Path) -> None:
    network = tiny_network([delta_arm(), position_arm()], prefix_steps=2)
    expected = act(Policy(network, "kuka", execute_steps=5), 12)
    write_folder(network, {"actionprior": {"embodiment": "kuka", "execute_steps": 5}}, tmp_path)
    policy = Policy.load(tmp_path)
    assert (policy.robot.name, policy.execute_steps) == ("kuka", 5)
    np.testing.assert_array_equal(act(policy, 12), expected)
    assert Policy.load(tmp_path, embodiment="panda", execute_steps=2).robot.name == "panda"


def test_precision_and_integrator_change_only_the_arithmetic() -> None:
    reference = act(Policy(tiny_network(), integration_steps=64, integrator="rk4"), 6)
    for changes in (
        {"integration_steps": 16, "integrator": "midpoint"},
        {"integration_steps": 99},
    ):
        np.testing.assert_allclose(act(Policy(tiny_network(), **changes), 6), reference, atol=0.05)
    rough = act(Policy(tiny_network(), precision=torch.bfloat16), 6)
    exact = act(Policy(tiny_network()), 6)
    assert 0 < np.abs(rough - exact).max() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation.state": np.zeros(7)}, r"of shape \(7,\), expected 8 numbers: joint_1"),
        ({"observation.state": np.full(8, np.nan)}, "not finite at joint_1"),
        ({"observation.state": np.array(["a"] * 8)}, "expected 8 numbers"),
        ({"observation.images.front": np.zeros((3, 40, 48))}, r"float64 of shape \(3, 40, 48\)"),
        ({"observation.images.front": np.zeros((0, 4, 3), np.uint8)}, "expected uint8"),
        ({"task": 3}, "'task' is a int, expected a string"),
    ],
)
def test_bad_observations_are_rejected_in_one_sentence(change: Any, message: str) -> None:
    policy = Policy(tiny_network())
    with pytest.raises(PolicyError, match=message):
        policy.select_action(observation(ARM) | change)
    assert not policy.memory.pairs


def test_bad_arguments_are_rejected_in_one_sentence() -> None:
    both = tiny_network([delta_arm(), position_arm()])
    with pytest.raises(PolicyError, match=r"several robots, \['panda', 'kuka'\]; name one"):
        Policy(both)
    with pytest.raises(PolicyError, match="no embodiment 'ur5'"):
        Policy(both, "ur5")
    with pytest.raises(PolicyError, match="execute_steps is 13, expected 1 to the chunk length 12"):
        Policy(tiny_network(), execute_steps=13)
    with pytest.raises(PolicyError, match="less delay_steps 5"):
        Policy(tiny_network(), execute_steps=8, delay_steps=5)
    with pytest.raises(PolicyError, match="expected 0 to execute_steps 2"):
        Policy(tiny_network(), execute_steps=2, delay_steps=3)
    with pytest.raises(PolicyError, match="only one of them"):
        Policy(tiny_network(), delay_steps=2, ensemble=0.1)
    with pytest.raises(PolicyError, match="the observation lacks 'task'"):
        Policy(tiny_network()).select_action(
            {k: v for k, v in observation(ARM).items() if k != "task"}
        )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"device": "cuda:7"}, r"device 'cuda:7' cannot be used: "),
        ({"device": "gpu"}, r"device 'gpu' cannot be used: "),
        ({"ensemble": float("nan")}, r"ensemble is nan; expected a finite number, or None"),
        ({"ensemble": "0.1"}, r"ensemble is '0.1'; expected a finite number"),
        ({"ensemble": True}, r"ensemble is True; expected a finite number"),
        ({"precision": "bf16"}, r"precision is 'bf16'; expected torch.float32, torch.bfloat16"),
        ({"integrator": "heun"}, r"integrator is 'heun'; expected one of euler, midpoint, rk4"),
        ({"guard": "stop"}, r"guard is 'stop'; expected one of off, warn, clip"),
        ({"guard": "clip"}, r"guard is 'clip', but the policy's file records no limits"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_that_cannot_act_are_refused_at_load(argument: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Policy(tiny_network(), **argument)


def test_a_guard_clips_what_is_executed_and_what_is_remembered(tmp_path: Path) -> None:
    network = tiny_network([plain_arm()])
    free = act(Policy(network), 6)
    limited(network, 0.01)
    write_folder(network, {"actionprior": {"embodiment": "plain"}}, tmp_path)  # keeps them
    policy = Policy.load(tmp_path, guard="clip", guard_margin=0.0)
    with pytest.warns(RuntimeWarning, match="beyond the recorded"):
        actions = act(policy, 6)
    assert np.abs(free).max() > 0.02
    assert np.abs(actions).max() < 0.0101
    assert np.array_equal(policy.memory.last_action, actions[-1])
    assert policy.guard.counts["limit"] == 6
    policy.reset()
    with pytest.warns(RuntimeWarning, match="beyond the recorded"):
        assert np.abs(policy.predict_chunk(observation(policy.robot))).max() < 0.0101


def test_a_robot_without_statistics_cannot_act() -> None:
    network: PolicyNetwork = tiny_network()
    network.prior.normalizer.fitted_E.fill_(False)
    with pytest.raises(Exception, match="no normalisation statistics for 'panda'"):
        Policy(network)


def test_it_needs_no_lightning() -> None:
    heavy = "lightning", "lerobot", "open_clip", "timm", "gymnasium", "pybullet"
    code = f"import sys, actionprior.policy; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
