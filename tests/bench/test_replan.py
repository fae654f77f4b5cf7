"""The benchmark prints its ratios; the speed itself is not tested."""

import json

import pytest

from bench.replan import main


def test_it_ends_with_its_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--repeats=1"])
    line = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(line.removeprefix("RESULT "))
    assert result["decoder_share"] > 0
    assert result["history_share"] > 0
    assert result["replan_ms"] > 0
