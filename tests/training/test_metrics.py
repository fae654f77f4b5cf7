"""Smoothness of chunks is measured inside the episode."""

import torch

from actionprior.training.metrics import ChunkBend
from tests.helpers.robots import position_arm


def test_bends_are_second_differences_inside_the_episode() -> None:
    robot = position_arm()
    metric = ChunkBend([robot])
    steps = torch.arange(6.0)[None, :, None]
    straight, curved = (3 * steps).expand(1, 6, 37), (steps**2).expand(1, 6, 37)
    mask = torch.ones(1, 6, 37, dtype=torch.bool)
    mask[:, 4:] = False
    jump = curved.clone()
    jump[:, 4:] = 99.0  # past the episode's end
    metric.update(jump, straight, mask, torch.zeros(1, dtype=torch.int64))
    found = metric.compute()
    assert {key.split("/")[0] for key in found} == {robot.name}
    assert {float(v) for k, v in found.items() if "/bend_predicted_" in k} == {2.0}
    assert {float(v) for k, v in found.items() if "/bend_recorded_" in k} == {0.0}
    assert len(found) == 2 * len(robot.action)
    metric.reset()
    assert metric.compute() == {}
