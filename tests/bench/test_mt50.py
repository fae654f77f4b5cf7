"""Rollouts of MetaWorld's 50 tasks become a table, and the page has what is printed from it."""

import json
from pathlib import Path

import pytest

from actionprior.benchmarks.metaworld_tasks import METAWORLD_DIFFICULTY
from bench import mt50
from bench.mt50 import add_rollouts, mt50_tables, read_outcomes, tables

PAGE = Path(__file__).parents[2] / "docs" / "metaworld.md"


def results(successes: dict[str, list[int]]) -> dict[str, object]:
    """Results as `lightning test` writes them; outcomes are those of seeds 0, 1, …"""
    environments = []
    for task, outcomes in successes.items():
        episodes = [{"seed": n, "success": bool(o)} for n, o in enumerate(outcomes)]
        environments.append({"env_id": f"metaworld/{task}", "episodes": episodes[::-1]})
    return {"environments": environments}


def test_outcomes_are_those_of_the_seeds_in_order() -> None:
    outcomes: mt50.Outcomes = {}
    add_rollouts(outcomes, "prior", results({"reach-v3": [1, 0, 0]}))
    add_rollouts(outcomes, "no_prior", results({"reach-v3": [0, 1, 1]}))
    assert outcomes == {"prior": {"reach": "100"}, "no_prior": {"reach": "011"}}


def test_two_policies_are_compared_by_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mt50, "TABLE", tmp_path / "table.csv")
    hard = METAWORLD_DIFFICULTY["hard"]
    for policy, wrong in (("no_prior", hard), ("prior", ())):
        tasks = [task for group in METAWORLD_DIFFICULTY.values() for task in group]
        played = {task: [int(task not in wrong)] * 10 for task in tasks}
        file = tmp_path / f"{policy}.json"
        file.write_text(json.dumps(results(played)))
        mt50_tables(policy, [str(file)])
    with pytest.raises(SystemExit):
        mt50.main([f"--results=[{file}]"])
    lines = capsys.readouterr().out.splitlines()
    assert "| hard (6 tasks) | 100.0 (94.0 to 100.0) | 0.0 (0.0 to 6.0) | +100.0" in "\n".join(
        lines
    )
    whole = "**100.0 (100.0 to 100.0)**"
    assert f"| **mean of groups** | {whole} | **75.0 (75.0 to 75.0)** | +25.0 |" in lines
    assert any("reach 10 · 10" in line for line in lines)
    assert len(read_outcomes(tmp_path / "table.csv")["prior"]) == 50


def test_a_policy_without_a_partner_has_a_table_of_its_own() -> None:
    tasks = [task for group in METAWORLD_DIFFICULTY.values() for task in group]
    outcomes: mt50.Outcomes = {}
    add_rollouts(outcomes, "one_camera", results({task: [1, 0] for task in tasks}))
    lines = tables(outcomes).splitlines()
    assert lines[:2] == ["| group | one camera [%] |", "| --- | --- |"]
    # Variances 1/4 over 56, 22, 12 and 10 rollouts.
    assert "| **mean of groups** | **50.0 (37.8 to 62.2)** |" in lines
    assert "| all tasks | 50.0 (40.4 to 59.6) |" in lines
    assert any("reach 1, " in line for line in lines)


def test_the_page_has_the_printed_tables() -> None:
    page = PAGE.read_text("utf-8")
    missing = [line for line in tables(read_outcomes()).splitlines() if line not in page]
    assert not missing
