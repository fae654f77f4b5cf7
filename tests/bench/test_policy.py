"""The policy's benchmark runs, and says of what it could not measure that it did not."""

import json

import pytest

from bench import policy
from bench.policy import main


@pytest.mark.slow
def test_it_measures_ours_beside_lerobots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(policy, "_siglip_trunk", policy._small_trunk)
    monkeypatch.setattr("bench.lerobot_policies.NAMES", ("act",))
    main(["--repeats", "1", "--control_seconds", "0.5", "--threads", "1"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert told["small"]["decoder_share"] > 0
    assert told["small"]["without_cache_over_with"] > 0
    assert told["small"]["bfloat16_over_float32"] > 0
    assert told["small"]["compiled_over_eager"] > 0
    assert told["act_over_small"] > 0
    assert told["control"]["steps"] == 15
