"""The formulas, and that they match the memory and traffic of processes."""

import json
from pathlib import Path

import pytest

from bench.scaling import MARK, main
from bench.step_costs import LayerStack, Machine, costs, state_bytes, traffic_bytes

PARTS = [LayerStack(1e9, 100, 10, 1000), LayerStack(5e8, 100, 10, 1000, trained=False)]


def test_states_and_traffic_of_trained_and_frozen_parts() -> None:
    assert state_bytes(PARTS, 8, sharded=False) == 16e9 + 2e9
    assert state_bytes(PARTS, 8, sharded=True) == 18e9 / 8
    assert traffic_bytes(PARTS, 4, sharded=False) == 0.75 * 2 * 4e9
    assert traffic_bytes(PARTS, 4, sharded=True) == 0.75 * (3 * 4e9 + 2e9)


def test_recomputing_costs_arithmetic_and_saves_memory() -> None:
    machine = Machine(operations=1e12, inside=1e9, between=1e8, node=8)
    plain, again = (costs(PARTS, 8, 2, False, recomputed, machine) for recomputed in (False, True))
    assert plain.compute_seconds == pytest.approx((6 * 1e9 + 2 * 5e8) * 100 * 2 / 1e12)
    assert again.compute_seconds == pytest.approx((8 * 1e9 + 2 * 5e8) * 100 * 2 / 1e12)
    assert again.activation_bytes < 0.2 * plain.activation_bytes
    farther = costs(PARTS, 16, 2, False, False, machine)
    assert farther.traffic_seconds > 10 * plain.traffic_seconds


def test_the_page_keeps_its_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"What it says.\n{MARK}\nold tables\n")
    main([f"--page={page}", "--processes=[]"])
    assert page.read_text().startswith(f"What it says.\n{MARK}\n\n**Stage 1**")
    assert "old tables" not in page.read_text()
    assert capsys.readouterr().out.splitlines()[-1] == "RESULT {}"


@pytest.mark.slow
def test_memory_and_traffic_of_processes_match_the_formulas(
    capfd: pytest.CaptureFixture[str],
) -> None:
    main(["--processes=[2]"])
    result = json.loads(capfd.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert result.keys() == {"ddp_2", "fsdp2_2"}
    for found in result.values():
        assert found["state"] == pytest.approx(1, abs=0.02)
        assert found["traffic"] == pytest.approx(1, abs=0.05)
