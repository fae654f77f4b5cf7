"""A dataset's names make a recipe that the doctor passes and training takes."""

from pathlib import Path

import pytest
import yaml

from actionprior.cli import main
from actionprior.commands.describe import recipe
from tests.helpers.datasets import write_dataset


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))


def test_a_recipe_is_written_that_the_doctor_passes(capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(Path("mine"), (40, 30))
    main(["describe", "mine", "--name=my_arm", "--out=robot.yaml"])
    assert "lightning doctor --config robot.yaml" in capsys.readouterr().out
    text = Path("robot.yaml").read_text()
    (robot,) = yaml.safe_load(text)["data"]["init_args"]["embodiments"]
    assert robot["name"] == "my_arm"
    assert robot["control_hz"] == 10
    arm, gripper = robot["action"]
    assert arm["features"] == ["j1", "j2"]
    assert arm["relative_to"] == "arm"
    assert (gripper["representation"], gripper["offset"]) == ("gripper", 7)
    main(["doctor", "--config=robot.yaml"])
    assert "0 errors" in capsys.readouterr().out
    main(["fit", "--config=robot.yaml", "--trainer.fast_dev_run=1", "--data.batch_size=4"])
    with pytest.raises(SystemExit):
        main(["describe", "mine", "--out=robot.yaml"])
    assert "robot.yaml is there already" in capsys.readouterr().err
    assert Path("robot.yaml").read_text() == text


def test_features_without_a_slot_are_named() -> None:
    action = [{"name": "arm", "slot": "joints", "features": ["j1"], "unit": "rad"}]
    robot = {"name": "mine", "control_hz": 10, "roots": ["set"], "action": action, "state": []}
    assert "# No slot found" in recipe(robot | {"ignored": ["qw"]})
    assert "# No slot found" not in recipe(robot | {"ignored": []})
