"""Keyframes: switches of grippers, and ends of episodes."""

import numpy as np
import pytest
import torch

from actionprior.data.keyframes import Keyframes
from actionprior.data.store import Recording, TrajectoryStore
from tests.helpers.robots import delta_arm, position_arm

OPEN, SHUT = 0.0, 1.0


def store_of(*grippers: list[float]) -> TrajectoryStore:
    """One episode per list of gripper commands; each state is the frame's number."""
    robot = delta_arm()
    names = robot.action_features
    column = next(
        robot.action_features.index(group.features[0])
        for group, kind in zip(robot.action, robot.action_representations, strict=True)
        if kind.is_gripper
    )
    frames = sum(map(len, grippers))
    action = np.zeros((frames, len(names)), np.float32)
    action[:, column] = np.concatenate(grippers)
    state = np.repeat(np.arange(frames, dtype=np.float32)[:, None], len(robot.state_features), 1)
    lengths = np.array([len(g) for g in grippers])
    return TrajectoryStore([robot], [(0, Recording(action, state, lengths))])


def test_the_next_keyframe_is_the_next_switch_or_the_end() -> None:
    store = store_of([OPEN, OPEN, SHUT, SHUT, OPEN, OPEN], [OPEN, OPEN, OPEN])
    after = Keyframes(store).after(torch.arange(9))
    assert after.tolist() == [2, 2, 4, 4, 5, 5, 8, 8, 8]


def test_commands_in_the_middle_and_other_episodes_are_no_switch() -> None:
    store = store_of([OPEN, 0.4, 0.6, 0.4, OPEN], [SHUT, 0.6, SHUT], [0.5, OPEN, OPEN])
    assert Keyframes(store).frame_K.tolist() == [4, 7, 10]


def test_a_slow_switch_counts_when_it_is_clear() -> None:
    store = store_of([OPEN, 0.3, 0.5, 0.7, 0.9, SHUT])
    assert Keyframes(store).frame_K.tolist() == [4, 5]


def test_states_are_those_of_the_next_keyframe() -> None:
    store = store_of([OPEN, OPEN, SHUT, SHUT])
    frames = torch.tensor([0, 2, 3])
    expected = store.states(torch.tensor([2, 3, 3]))
    assert torch.equal(Keyframes(store).states(frames), expected)


@pytest.mark.parametrize("lengths", [[4, 3]])
def test_a_robot_without_a_gripper_has_ends_only(lengths: list[int]) -> None:
    robot = position_arm()
    frames = sum(lengths)
    rng = np.random.default_rng(0)
    recording = Recording(
        np.zeros((frames, len(robot.action_features)), np.float32),
        rng.normal(size=(frames, len(robot.state_features))).astype(np.float32),
        np.array(lengths),
    )
    store = TrajectoryStore([robot, robot], [(0, recording), (1, recording)])
    assert Keyframes(store).frame_K.tolist() == [3, 6, 10, 13]
