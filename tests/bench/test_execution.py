"""Success by integrator, steps and delay, on paired scenes."""

import json
from pathlib import Path

import pytest

from actionprior.envs.embodiments import suite_embodiment
from bench import execution
from bench.execution import main
from tests.helpers.policies import tiny_network, write_checkpoint


@pytest.mark.slow
def test_every_setting_is_on_the_page_and_in_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(execution, "SETTINGS", [("euler", 1), ("rk4", 8)])
    policy = write_checkpoint(tiny_network([suite_embodiment("panda")]), tmp_path / "policy.ckpt")
    page = tmp_path / "page.md"
    words = ["--env_ids", "[actionprior/PandaReach-v0]", "--rollouts", "2", "--delays", "[2]"]
    main(["--ckpt_path", str(policy), *words, "--page", str(page)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    rough, fine = result["integration"]
    assert (rough["decoder_calls"], fine["decoder_calls"]) == (1, 32)
    assert rough["error"] > 10 * fine["error"] > 0
    assert [row["name"] for row in result["delay"]] == ["none", "2, held", "2, not held"]
    assert {row["rollouts"] for row in [*result["integration"], *result["delay"]]} == {2}
    assert "| euler, 1 | 1 |" in page.read_text("utf-8")


def test_an_empty_list_of_environments_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--ckpt_path", str(tmp_path), "--env_ids", "[]"])
    assert "env_ids is empty" in capsys.readouterr().err
