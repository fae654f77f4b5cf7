"""A dataset's names make a recipe that the doctor passes and training takes."""

from pathlib import Path

import pytest
import yaml

from actionprior.cli import main
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


def test_a_recipe_shows_how_to_give_other_wordings() -> None:
    front = "observation.images.front"
    tasks = ("push the cube", 'say "hi": now\nname: evil', "lift", "wave")
    write_dataset(Path("mine"), (20, 20, 20, 20), cameras={front: "image"}, tasks=tasks)
    write_dataset(Path("blind"), (20, 20))
    for name in ("mine", "blind"):
        main(["describe", name, f"--out={name}.yaml"])
    assert "wordings" not in Path("blind.yaml").read_text()
    text = Path("mine.yaml").read_text()
    (robot,) = yaml.safe_load(text)["data"]["init_args"]["embodiments"]
    assert robot["name"] == "mine"
    assert "other_wordings" not in robot
    shown = text.replace("        # other_wordings", "        other_wordings")
    (robot,) = yaml.safe_load(shown.replace("        #   ", "          "))["data"]["init_args"][
        "embodiments"
    ]
    assert robot["other_wordings"] == {text: [] for text in sorted(tasks)[:3]}


@pytest.mark.parametrize(
    ("written", "misspelt", "message"),
    [
        (
            "control_hz:",
            "control_hertz:",
            "data.embodiments (LeRobotEmbodiment): unknown key 'control_hertz' (did you mean "
            "'control_hz'?)",
        ),
        (
            "embodiments:",
            "embodiment:",
            "data (LeRobotTrajectories): unknown key 'embodiment' (did you mean 'embodiments'?)",
        ),
        (
            "width: 96",
            "widht: 96",
            "model.architecture (PriorArchitecture): unknown key 'widht' (did you mean 'width'?)",
        ),
        (
            'roots: ["mine"]',
            "roots: mine",
            "data.embodiments.roots (LeRobotEmbodiment): expected a list, found mine",
        ),
        (
            "max_steps:",
            "max_stepz:",
            "unknown key 'trainer.max_stepz' (did you mean 'trainer.max_steps'?)",
        ),
    ],
)
def test_a_misspelt_recipe_is_one_short_sentence(
    written: str, misspelt: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(Path("mine"), (20, 20))
    main(["describe", "mine", "--out=robot.yaml"])
    text = Path("robot.yaml").read_text()
    assert text.count(written) == 1
    Path("robot.yaml").write_text(text.replace(written, misspelt))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--config=robot.yaml"])
    expected = f"error: {message}; `lightning fit --help` lists the options\n"
    assert capsys.readouterr().err == expected


def test_the_folder_of_the_recipe_is_made() -> None:
    write_dataset(Path("mine"), (20, 20))
    main(["describe", "mine", "--out=new/robot.yaml"])
    assert Path("new/robot.yaml").is_file()


HOSTILE = "base_vel\nmodel:\n  class_path: os.system\r\x1b[2J\u2028\u202e 🤖"


def test_a_hostile_name_adds_nothing_to_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(Path("mine"), (40, 30), names=["j1", "j2", HOSTILE])
    main(["describe", "mine", f"--name={HOSTILE}", "--out=robot.yaml"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    text = Path("robot.yaml").read_text()
    recipe = yaml.safe_load(text)
    assert recipe["model"]["class_path"] == "actionprior.MotionPriorModule"
    (robot,) = recipe["data"]["init_args"]["embodiments"]
    assert robot["name"] == HOSTILE
    assert robot["ignored"] == [HOSTILE]
    assert all(line.isprintable() for line in text.split("\n"))


def test_what_is_uncertain_stands_in_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(Path("mine"), (40, 30), names=["j1", "j2", "base_vel"])
    main(["describe", "mine", "--out=robot.yaml"])
    assert "to check: 'action': left out base_vel: a velocity" in capsys.readouterr().out
    text = Path("robot.yaml").read_text()
    assert "# To check: 'observation.state': left out base_vel: a velocity" in text
    (robot,) = yaml.safe_load(text)["data"]["init_args"]["embodiments"]
    assert robot["ignored"] == ["base_vel"]
    main(["fit", "--config=robot.yaml", "--trainer.fast_dev_run=1", "--data.batch_size=4"])
