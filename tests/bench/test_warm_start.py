"""Test that the benchmark of continued priors measures both arms' curves."""

import json
from pathlib import Path

import pytest

from bench import warm_start


@pytest.mark.slow
def test_it_reports_curves_from_scratch_and_from_the_prior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pybullet")
    sizes = {"episodes": 1, "prior_episodes": 1, "steps": 15, "prior_steps": 4, "seeds": 1}
    warm_start.main([f"--out={tmp_path}", *(f"--{name}={value}" for name, value in sizes.items())])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("RESULT ")]
    result = json.loads(line.removeprefix("RESULT "))
    assert set(result["mean_error_by_step"]) == {"from_scratch", "from_prior"}
    assert list(result["mean_error_by_step"]["from_prior"]) == [str(s) for s in range(1, 16)]
    assert len(result["steps_from_prior_to_that_error"]) == 1
    assert result["held_out_episodes"] == 2
