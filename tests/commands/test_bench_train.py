"""The benchmark compares two ways to the same loss; how fast they are here is not tested."""

import json

import pytest

from actionprior.cli import main


@pytest.mark.slow
def test_both_ways_end_with_the_same_loss(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--width=32", "--depth=1", "--batch_size=16"]
    main(["bench-train", "--steps=4", "--rounds=1", *sizes])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert result["largest_difference_of_losses"] < 1e-5
    assert result["samples_per_s"] > 0
    assert 0 < result["flops_share"] < 2
    assert result["ddp_efficiency"] > 0
    assert set(result["met"]) == {"overhead_below_3_percent", "ddp_at_least_85_percent"}
