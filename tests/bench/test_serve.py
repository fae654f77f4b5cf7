"""The benchmark prints its measurements; the speed itself is not tested."""

import json

import pytest

from bench.serve import main


@pytest.mark.slow
def test_it_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--repeats=2", "--clients=3"])
    line = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(line.removeprefix("RESULT "))
    assert result["served_ms"] > result["beside_the_policy_ms"] > 0
    assert result["in_process_ms"] > 0
    assert 1 <= result["mean_batch"] <= result["clients"] == 3
    assert result["chunks_per_s"] > 0
    assert result["p99_ms"] >= result["median_ms"] > 0
