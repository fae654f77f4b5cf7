"""Policies are trained on recordings by their own commands and compared on held-out episodes."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from actionprior.errors import UserError
from bench.peers.recordings import compare_recordings, read_rows
from bench.peers.training import Cost
from tests.helpers.datasets import CAMERAS, arm, write_dataset
from tests.helpers.peers import SMALL, recipe_of


def write_recipe(folder: Path) -> Path:
    """Write three episodes of an arm, and a recipe of Stage 2 that holds one of them out."""
    root = write_dataset(folder / "arm", (40, 30, 20), cameras={CAMERAS[0]: "image"})
    robot = json.loads(json.dumps(asdict(arm(root, cameras=CAMERAS[:1]))))
    recipe = recipe_of(robot, {}, folder / "recipe.yaml")
    content = yaml.safe_load(recipe.read_text())
    content["data"]["init_args"]["val_episodes"] = {"arm": [1]}
    recipe.write_text(yaml.safe_dump(content))
    return recipe


@pytest.mark.slow
def test_each_policy_is_trained_and_compared_with_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, results = write_recipe(tmp_path), tmp_path / "results.jsonl"
    monkeypatch.setattr("bench.peers.training.Training.cost", lambda _: Cost(1.0, 0.0, 30.0))
    shared = {"recipe": recipe, "folder": tmp_path / "runs", "results": results}
    compare_recordings(["actionprior"], [1.0], **shared)
    compare_recordings(["act"], [1.0], options=SMALL, **shared)
    rows = read_rows(results)
    assert [row.policy for row in rows] == ["copying", "actionprior", "act"]
    for row in rows:
        assert row.units == {"arm": "rad", "gripper": ""}
        assert all(len(errors) == 1 and errors[0] > 0 for errors in row.errors.values())
    compare_recordings(["actionprior", "act"], [1.0], **shared)  # everything is there
    assert read_rows(results) == rows
    line = capsys.readouterr().out.strip().splitlines()[-1]
    table = json.loads(line.removeprefix("RESULT "))
    assert [len(row["mean"]["arm"]) for row in table] == [3, 3, 3]


def test_a_policy_that_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match=r"policies names 'multi_task_dit', expected some of \["):
        compare_recordings(["multi_task_dit"], [1.0])
