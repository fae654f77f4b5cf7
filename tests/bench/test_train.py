"""The benchmark compares two loops with the same loss; their speed is not tested."""

import json
from dataclasses import replace

import pytest

from actionprior.networks.trunks import SmallTrunk
from actionprior.training.settings import FusionSize
from bench.gpu import Sizes, bench_gpu
from bench.short_runs import ShortRun
from bench.train import main


@pytest.mark.slow
def test_both_loops_end_with_the_same_loss(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--width=32", "--depth=1", "--batch_size=16"]
    main(["--steps=4", "--rounds=1", *sizes])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert result["largest_difference_of_losses"] < 1e-5
    assert result["samples_per_s"] > 0
    assert 0 < result["flops_share"] < 2
    assert result["ddp_efficiency"] > 0
    assert set(result["met"]) == {"overhead_below_3_percent", "ddp_at_least_85_percent"}


@pytest.mark.slow
def test_both_stages_on_a_device() -> None:
    run = ShortRun(4, 1, "cpu", "bf16-mixed", warm=1, accumulate=2)
    sizes = Sizes(
        prior={"width": 32, "encoder_depth": 1, "decoder_depth": 1, "decoder_sees_state": True},
        stage1=run,
        stage2=replace(run, accumulate=1),
        trunk=lambda: SmallTrunk(grid=1),
        pixels=64,
        fusion=FusionSize(32, 1, 2),
        compiled=False,
    )
    result = bench_gpu(sizes)
    for stage in ("stage1", "stage2"):
        assert result[stage]["eager"]["samples_per_s"] > 0
        assert 0 < result[stage]["eager"]["flops_share"] < 2
    assert result["stage1"]["overhead"] > -1
