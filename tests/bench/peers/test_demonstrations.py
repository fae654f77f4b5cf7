"""Instructions become vectors of pairs of words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from actionprior.errors import UserError
from bench.peers.demonstrations import (
    WORDS_KEY,
    InstructionVectors,
    cut_image,
    with_cut_images,
    with_instruction_vectors,
)
from tests.helpers.datasets import CAMERAS, write_dataset


def test_pairs_keep_apart_which_thing_is_red() -> None:
    read = InstructionVectors(["push the red cube to the blue pad", "push the blue cube"])
    first, second = read(["push the red cube to the blue pad", "push the blue cube to the red pad"])
    assert len(read) == len(first)
    assert first.sum() == 8
    assert not np.array_equal(first, second)
    with pytest.raises(UserError, match="no words of the instruction 'lift it' are in the demo"):
        read(["lift it"])


def test_the_copy_has_instructions_as_vectors_and_only_the_cameras_that_are_seen(
    tmp_path: Path,
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = write_dataset(tmp_path / "both", cameras=dict.fromkeys(CAMERAS, "image"))
    front, wrist = CAMERAS
    tasks = with_instruction_vectors(root, tmp_path / "one", without=[wrist])
    assert sorted(tasks) == ["lift the cube", "push the cube"]
    copy = LeRobotDataset("local/one", root=tmp_path / "one")
    assert copy.meta.camera_keys == [front]
    read = InstructionVectors(tasks)
    first, whole = copy[0], LeRobotDataset("local/both", root=root)[0]
    assert np.array_equal(first[WORDS_KEY].numpy(), read([first["task"]])[0])
    assert first[front].equal(whole[front])


def test_one_cameras_images_are_cut_and_all_else_is_as_recorded(tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    region = (0.25, 0.5, 0.75, 1.0)
    root = write_dataset(tmp_path / "whole", cameras=dict.fromkeys(CAMERAS, "image"))
    front, wrist = CAMERAS
    (tmp_path / "cut.part").mkdir()  # of an interrupted run
    with_cut_images(root, tmp_path / "cut", front, region)
    assert not (tmp_path / "cut.part").exists()
    whole = LeRobotDataset("local/whole", root=root)
    cut = LeRobotDataset("local/cut", root=tmp_path / "cut")
    assert (len(cut), cut.num_episodes) == (len(whole), whole.num_episodes)
    assert cut.meta.features == whole.meta.features
    for number in (0, 11, 12, len(whole) - 1):
        found, recorded = cut[number], whole[number]
        image = (recorded[front][None] * 255).round().to(torch.uint8)
        assert found[front].allclose(cut_image(image, region)[0], atol=1 / 255)
        assert found[wrist].allclose(recorded[wrist], atol=1 / 255)
        for key in ("action", "observation.state", "timestamp", "episode_index", "task_index"):
            assert found[key].equal(recorded[key])
    shown = cut_image(image, region)
    assert shown.shape == image.shape
    assert not shown.allclose(image / 255, atol=0.1)
    assert cut_image(image, None).equal(image / 255)
