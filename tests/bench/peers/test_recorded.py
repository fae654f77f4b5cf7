"""Recorded episodes are copied, and actions are compared with them open loop."""

from pathlib import Path

import numpy as np
import pytest

from actionprior.recording.lerobot_writer import Demonstration, RecordedFrame
from bench.peers.recorded import CopyLast, copy_episodes, open_loop_error, read_episodes
from data_modules import LeRobotVLA
from data_modules.lerobot.columns import read_columns
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm, write_dataset


@pytest.fixture
def data(tmp_path: Path) -> LeRobotVLA:
    root = write_dataset(tmp_path / "arm", (12, 7, 9), cameras=dict.fromkeys(CAMERAS, "image"))
    robot = arm(root, cameras=CAMERAS)
    images = ImageSettings(image_size=16)
    module = LeRobotVLA(
        [robot], chunk_length=4, history_length=2, val_episodes={"arm": [1]}, images=images
    )
    module.prepare_data()
    module.setup("validate")
    return module


def test_the_copy_holds_the_training_episodes(data: LeRobotVLA, tmp_path: Path) -> None:
    robot = data.robots[0]
    (held_out,) = read_episodes(data, data.frames.val)
    assert len(held_out.frames) == 7
    assert held_out.frames[0].images[CAMERAS[1]].shape == (16, 16, 3)
    copy_episodes(data, data.frames.train, tmp_path / "copy")
    copy_episodes(data, data.frames.train, tmp_path / "copy")  # it exists
    whole, copied = (read_columns(p, robot) for p in (robot.roots[0], tmp_path / "copy"))
    assert copied.lengths_E.tolist() == [12, 9]
    chosen = np.array([*range(12), *range(19, 28)])
    np.testing.assert_array_equal(copied.action_Na, whole.action_Na[chosen])
    np.testing.assert_array_equal(copied.state_Ns, whole.state_Ns[chosen])
    assert copied.tasks_E == [whole.tasks_E[0], whole.tasks_E[2]]


def test_errors_are_means_of_each_group_in_its_unit() -> None:
    actions = np.array([[0, 0, 1], [1, 2, 1], [2, 4, 0], [3, 6, 0]], np.float32)
    frames = [RecordedFrame(action, {}, action) for action in actions]
    episode = Demonstration("push the cube", frames)
    right = open_loop_error(arm(), episode, lambda frame, _: frame.state, skip=0)
    assert right == {"arm": 0, "gripper": 0}
    # Held from step 1 for steps 2 and 3: joints are off by 1 and 2, and by 2 and 4.
    copied = open_loop_error(arm(), episode, CopyLast(2), skip=2)
    assert copied == {"arm": pytest.approx((1 + 2 + 2 + 4) / 4), "gripper": pytest.approx(1.0)}
