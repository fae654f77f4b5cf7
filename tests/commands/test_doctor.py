"""The doctor reads what training would read, and its exit code says whether to train."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from actionprior.cli import main
from tests.datasets import write_dataset

ROBOT = {
    "name": "arm",
    "control_hz": 10,
    "action": [
        {
            "name": "arm",
            "slot": "joints",
            "features": ["j1", "j2"],
            "unit": "rad",
            "relative_to": "arm",
        },
        {
            "name": "gripper",
            "slot": "joints",
            "features": ["grip"],
            "representation": "gripper",
            "offset": 7,
        },
    ],
    "state": [
        {"name": "arm", "slot": "joints", "features": ["j1", "j2"], "unit": "rad"},
        {
            "name": "gripper",
            "slot": "joints",
            "features": ["grip"],
            "representation": "gripper",
            "offset": 7,
        },
    ],
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    roots = [str(write_dataset(tmp_path / "mine", (40, 30, 9)))]
    data = {
        "class_path": "data_modules.LeRobotTrajectories",
        "init_args": {"embodiments": [ROBOT | {"roots": roots}]},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": data, "trainer": {"max_steps": 3}}))
    return path


def test_findings_are_told_written_and_drawn(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", f"--config={recipe}"])
    printed = capsys.readouterr().out
    assert "0 errors" in printed
    findings = json.loads(Path("outputs/doctor/doctor.json").read_text())
    short = next(f for f in findings if f["check"] == "short")
    assert (short["level"], short["robot"], short["episode"]) == ("warning", "arm", 2)
    assert Path(short["dataset"]).name == "mine"
    assert "action_is_next_state" in {f["check"] for f in findings}
    picture = Image.open("outputs/doctor/00-arm.png").convert("L")
    assert picture.size[0] > 800
    assert picture.getextrema() == (0, 255)


def test_an_error_ends_with_a_code(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["data"]["init_args"]["embodiments"][0]["control_hz"] = 30
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as stop:
        main(["doctor", f"--config={recipe}", "--out=elsewhere"])
    assert stop.value.code == 1
    (finding,) = json.loads(Path("elsewhere/doctor.json").read_text())
    assert (finding["level"], finding["check"]) == ("error", "refused")
    assert "has 10 frames a second, but embodiment 'arm' says control_hz 30" in finding["message"]
    assert "refused" in capsys.readouterr().out


def test_a_recipe_without_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.yaml"
    path.write_text("trainer: {max_steps: 3}\n")
    with pytest.raises(SystemExit) as stop:
        main(["doctor", f"--config={path}"])
    assert stop.value.code == 2
    assert "found NoneType" in capsys.readouterr().err
