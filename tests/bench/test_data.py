"""The benchmark prints its ratios; the speed itself is not tested."""

import json
from pathlib import Path

import pytest

from actionprior.errors import UserError
from bench.data import bench_data, main

pytest.importorskip("pybullet")


@pytest.mark.slow
def test_it_ends_with_its_ratios_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sizes = ["--batch_size=64", "--frames=1000000", "--episodes=8"]
    main(["--repeats=1", f"--folder={tmp_path}", *sizes])
    line = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(line.removeprefix("RESULT "))
    for key in (
        "stage1_windows_per_s",
        "stage1_vs_lerobot",
        "stage1_vs_gather_limit",
        "scaling_1e5_to_1e8",
        "startup_s_1e8",
        "memory_mb_1e5",
        "memory_mb_1e8",
        "stage2_vs_lerobot_video",
        "data_wait_share",
    ):
        assert result[key] > 0
    assert result["data_wait_share"] < 1
    # Ten times the frames: only tables of episodes grow.
    assert result["memory_mb_1e8"] < result["memory_mb_1e5"] + 30
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"76001\.1 GB are needed and .* choose another folder"):
        bench_data(frames=10**12, folder=str(tmp_path))
    assert not list(tmp_path.iterdir())
