"""Test that ranges are those of steps inside episodes, per robot, and survive as plain data."""

import numpy as np
import pytest
import torch

from actionprior.embodiment.recorded_ranges import RecordedRanges, widen_ranges
from tests.helpers.robots import delta_arm, position_arm, windows

ROBOTS = [delta_arm(), position_arm()]


def test_padding_counts_for_nothing_and_ranges_widen() -> None:
    batch = windows(ROBOTS, 6, 8)
    batch.step_mask_BH[:, 5:] = False
    batch.action_BHA[:, 5:] = 1e6
    ranges: dict[str, RecordedRanges] = {}
    widen_ranges(ranges, ROBOTS, batch)
    for row, robot in enumerate(ROBOTS):
        rows = (batch.embodiment_B == row).nonzero()[:, 0].tolist()
        episodes = [batch.action_BHA[b][batch.step_mask_BH[b]] for b in rows]
        found = ranges[robot.name]
        assert np.array_equal(found.action_high, torch.cat(episodes).amax(0).numpy())
        assert np.array_equal(found.action_low, torch.cat(episodes).amin(0).numpy())
        steps = torch.cat([episode.diff(dim=0).abs() for episode in episodes])
        assert np.array_equal(found.action_step, steps.amax(0).numpy())
    before = ranges["panda"]
    batch.action_BHA[:, 0] += 3
    widen_ranges(ranges, ROBOTS, batch)
    assert (ranges["panda"].action_high >= before.action_high).all()
    assert np.array_equal(ranges["panda"].action_low, before.action_low)


def test_plain_data_are_read_back_and_checked() -> None:
    ranges: dict[str, RecordedRanges] = {}
    widen_ranges(ranges, ROBOTS, windows(ROBOTS, 3, 4))
    plain = ranges["kuka"].to_plain()
    for found, wanted in zip(RecordedRanges.from_plain(plain), ranges["kuka"], strict=True):
        assert np.array_equal(found, wanted)
    for damaged in ({}, plain | {"state_low": [0.0]}, plain | {"action_low": [float("nan")] * 37}):
        with pytest.raises(ValueError, match="finite numbers"):
            RecordedRanges.from_plain(damaged)
