"""The page has the table of the committed counts, and planted faults are found."""

import json
from pathlib import Path

import pytest

from actionprior.errors import UserError
from bench import doctor

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_committed_table() -> None:
    result = json.loads((DOCS / "doctor" / "faults.json").read_text())
    page = (DOCS / "doctor.md").read_text()
    assert f"{doctor.BEGIN}\n{doctor.table(result)}\n{doctor.END}" in page
    assert list(result["faults"]) == list(doctor.FAULTS)


def test_a_planted_fault_is_found_and_the_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "FAULTS", {name: doctor.FAULTS[name] for name in ("sign", "copy")})
    page = tmp_path / "page.md"
    page.write_text(f"before\n{doctor.BEGIN}\nold\n{doctor.END}\nafter\n")
    doctor.main(["--places=1", "--episodes=8", "--clean=1", f"--page={page}"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    for row in result["faults"].values():
        assert row == {"planted": 3, "found": 3, "placed": 3, "false": 0}
    assert [clean["alarms"] for clean in result["clean"]] == [[], [], []]
    assert (
        page.read_text() == f"before\n{doctor.BEGIN}\n{doctor.table(result)}\n{doctor.END}\nafter\n"
    )


def test_no_place_is_refused() -> None:
    with pytest.raises((UserError, SystemExit)):
        doctor.main(["--places=0"])
