"""The benchmark prints its ratios; how fast it is here is not tested."""

import json
from pathlib import Path

import pytest

from actionprior.cli import main

pytest.importorskip("pybullet")


@pytest.mark.slow
def test_it_ends_with_its_ratios_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sizes = ["--batch_size=64", "--frames=200000", "--episodes=8"]
    main(["bench-data", "--repeats=1", f"--folder={tmp_path}", *sizes])
    line = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(line.removeprefix("RESULT "))
    for key in (
        "stage1_windows_per_s",
        "stage1_vs_lerobot",
        "stage1_vs_gather_limit",
        "scaling_1e5_to_1e8",
        "startup_s_1e8",
        "stage2_vs_lerobot_video",
        "data_wait_share",
    ):
        assert result[key] > 0
    assert result["data_wait_share"] < 1
    assert not list(tmp_path.iterdir())
