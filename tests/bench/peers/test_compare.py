"""Policies are trained by their own commands and meet the same scenes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from actionprior import Policy
from actionprior.envs.embodiments import suite_embodiment
from actionprior.envs.recording import record_demonstrations
from actionprior.errors import UserError
from bench.command_line import run
from bench.peers.compare import PeerSetting, compare, read_rows
from bench.peers.contenders import CONTENDERS
from bench.peers.training import Cost, Training
from data_modules.lerobot.source import read_info
from data_modules.lerobot.tasks import read_tasks
from tests.helpers.datasets import CAMERAS, arm, write_dataset
from tests.helpers.peers import REACH, SMALL, recipe_of


def write_recipe(folder: Path) -> Path:
    """Record two demonstrations, and write a recipe of Stage 2 with rollouts."""
    root = folder / "reach"
    record_demonstrations([REACH], root, episodes_per_task=2, image_size=32)
    robot = asdict(suite_embodiment("panda"))
    keys = ("name", "control_hz", "action", "state", "cameras")
    embodiment: dict[str, Any] = {key: robot[key] for key in keys} | {"roots": [str(root)]}
    observation_map = {
        "images": {"observation.images.front": "image"},
        "text": read_tasks(root, read_info(root))[0],
    }
    return recipe_of(json.loads(json.dumps(embodiment)), observation_map, folder / "recipe.yaml")


@pytest.mark.slow
def test_each_policy_is_trained_and_rolled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, results = write_recipe(tmp_path), tmp_path / "results.jsonl"
    # No pilot runs: the steps of the real ones are granted, whatever they cost.
    monkeypatch.setattr("bench.peers.training.Training.cost", lambda _: Cost(1.0, 0.0, 30.0))
    shared = {"recipe": recipe, "episodes": 2, "folder": tmp_path / "runs", "results": results}
    compare(["actionprior"], [1.0], **shared)
    compare(["act", "act_cut"], [1.0], options=SMALL, **shared)
    rows = read_rows(results)
    assert [row.policy for row in rows] == ["actionprior", "act", "act_cut"]
    assert all(row.steps in (1, 2) and row.spent > 0 and row.parameters > 1000 for row in rows)
    assert all(set(row.successes) == {REACH} for row in rows)
    compare(["actionprior", "act", "act_cut"], [1.0], **shared)  # everything is there
    assert read_rows(results) == rows
    line = capsys.readouterr().out.strip().splitlines()[-1]
    table = json.loads(line.removeprefix("RESULT "))
    assert [len(row["interval"]) for row in table] == [2, 2, 2]


@pytest.mark.slow
def test_policies_see_the_chosen_cameras(tmp_path: Path) -> None:
    front, wrist = CAMERAS
    root = write_dataset(tmp_path / "arm", cameras=dict.fromkeys(CAMERAS, "image"))
    described = json.loads(json.dumps(asdict(arm(root, cameras=CAMERAS))))
    images = {front: "image", wrist: "__render__"}
    recipe = recipe_of(described, {"images": images}, tmp_path / "recipe.yaml")
    setting = PeerSetting(recipe, [front])
    assert setting.robot.cameras == [front]
    assert setting.unseen == (wrist,)
    assert setting.observation_map.images == {front: "image"}
    training = Training(CONTENDERS["actionprior"], recipe, root, tmp_path, {}, 1, [front])
    training.run("pilot", 1, seed=0)
    policy = Policy.load(training.policy("pilot"))
    assert [list(robot.cameras) for robot in policy.network.embodiments] == [[front]]
    assert PeerSetting(recipe).unseen == ()
    with pytest.raises(UserError, match=r"cameras names 'left', expected some of \[.*wrist'\]"):
        PeerSetting(recipe, ["left"])


def test_too_short_a_budget_and_unknown_policies_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(compare, "peers", ["--policies=[pi0]", "--minutes=[1]"])
    assert f"policies names 'pi0', expected some of {list(CONTENDERS)}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"0\.5 minutes are too few"):
        Cost(20.0, 5.0, 6.0).steps(30)
    assert Cost(20.0, 5.0, 6.0).steps(60) == 5
