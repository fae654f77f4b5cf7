"""The policy's benchmark runs and reports every ratio."""

import json

import pytest

from bench import policy
from bench.policy import main


@pytest.mark.slow
def test_it_measures_this_projects_policies_and_lerobots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(policy, "_siglip_trunk", policy._small_trunk)
    monkeypatch.setattr("bench.lerobot_policies.NAMES", ("act",))
    main(["--repeats", "1", "--control_seconds", "0.5", "--threads", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert 0 < result["compact"]["least_ms"] <= result["compact"]["p99_ms"]
    assert result["compact"]["decoder_by_forward_over_sampled"] > 0
    assert result["small"]["decoder_share"] > 0
    assert result["small"]["without_cache_over_with"] > 0
    assert result["small"]["bfloat16_over_float32"] > 0
    assert result["small"]["compiled_over_eager"] > 0
    assert result["act_over_small"] > 0
    assert result["control"]["steps"] == 15
