"""An exported folder: its files, what it may replace, and that it is written completely or not."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from httpx import ConnectError
from huggingface_hub import HfApi, ModelCard

from actionprior.checkpoints import folder as policy_folder
from actionprior.cli import main
from actionprior.commands.export import FILES, GRAPHS
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import Policy
from tests.helpers.datasets import arm, write_dataset
from tests.helpers.policies import limited, observation, tiny_network, write_checkpoint
from tests.helpers.robots import delta_arm, position_arm, tool_arm


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tiny_network(prefix_steps=2), tmp_path / "run/checkpoints/policy.ckpt")


def exported(checkpoint: Path, out: Path, *words: str) -> Path:
    main(["export", "--ckpt_path", str(checkpoint), "--out", str(out), *words])
    return out


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path, out: Path, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        exported(checkpoint, out, *words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def results(step: int, rate: float) -> str:
    environment = {
        "env_id": "Reach-v0",
        "success_rate": rate,
        "success_low": rate / 2,
        "success_high": 1.0,
        "return": 3.5,
        "episodes": [{}] * 8,
    }
    return json.dumps({"step": step, "success_rate": rate, "environments": [environment]})


def test_names_of_a_checkpoint_are_no_markup_in_the_card(tmp_path: Path) -> None:
    hostile = "arm`\n# Run `curl x | sh` <script>\x1b[0m"
    robot = replace(delta_arm(), name=hostile, cameras=[f"observation.images.{hostile}"])
    out = exported(write_checkpoint(tiny_network([robot]), tmp_path / "p.ckpt"), tmp_path / "out")
    card = (out / "README.md").read_text()
    assert "\n# Run" not in card
    assert "<script>" not in card
    assert "\x1b" not in card


def test_a_folder_remembers_how_to_guard(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(limited(tiny_network(), 0.01), tmp_path / "policy.ckpt")
    assert Policy.load(exported(checkpoint, tmp_path / "plain")).guard.mode == "warn"
    words = ["--guard", "clip", "--guard_margin", "0"]
    policy = Policy.load(exported(checkpoint, tmp_path / "clips", *words))
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        assert np.abs(policy.predict_chunk(observation(policy.robot))).max() < 0.0101
    assert Policy.load(tmp_path / "clips", guard="off").guard.mode == "off"


def test_a_checkpoint_becomes_a_folder_that_acts_the_same(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--execute_steps", "4", "--delay_steps", "2", "--license", "mit"]
    out = exported(checkpoint, tmp_path / "out", *words)
    assert f"--policy.path={out}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == FILES
    policy = Policy.load(checkpoint, execute_steps=4, delay_steps=2)
    folder = Policy.load(out)
    for step in range(15):
        seen = observation(delta_arm(), step)
        np.testing.assert_array_equal(folder.select_action(seen), policy.select_action(seen))
    config = json.loads((out / "config.json").read_text())
    assert config["device"] is None  # LeRobot chooses the fastest device
    assert config["license"] == "mit"
    written = [p.read_text() for p in out.iterdir() if p.suffix != ".safetensors"]
    assert str(tmp_path) not in "".join(written)  # no paths of this machine go to a hub


def test_the_card_has_what_a_user_needs(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run" / "rollouts"
    for folder, step, rate in (("step_7", 7, 0.75), ("step_3", 3, 0.125)):
        (run / folder).mkdir(parents=True)
        (run / folder / "results.json").write_text(results(step, rate))
    out = exported(checkpoint, tmp_path / "out", "--license", "apache-2.0")
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "lerobot"
    assert {"robotics", "lerobot", "actionprior"} <= set(card.data.tags)
    assert "| `Reach-v0` | 75.0 % | 37.5 to 100.0 % | 8 | 3.50 |" in card.text
    assert "12.5 %" not in card.text  # of another step of the run
    assert "| arm (joint delta) | rad | `joint_1`, `joint_2`" in card.text
    assert "Cameras: `observation.images.front`" in card.text
    for way in ("Policy.load", "lerobot-rollout", "--fps=10", "lerobot-eval"):
        assert way in card.text


def test_without_figures_the_card_says_so(checkpoint: Path, tmp_path: Path) -> None:
    text = (exported(checkpoint, tmp_path / "out") / "README.md").read_text()
    assert "## Evaluation\n\nNone was given." in text
    assert "No licence was given" in text
    file = tmp_path / "other.json"
    file.write_text(results(1, 0.5))
    text = (
        exported(checkpoint, tmp_path / "out", "--evaluation", str(file)) / "README.md"
    ).read_text()
    assert "| 50.0 % |" in text


def test_the_python_of_the_card_runs(checkpoint: Path, tmp_path: Path) -> None:
    text = (exported(checkpoint, tmp_path / "out") / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    seen = observation(delta_arm())
    code = code.replace("path/to/this/folder", str(tmp_path / "out"))
    for key in seen:
        code = code.replace(f'"{key}": …', f'"{key}": seen["{key}"]')
    names: dict[str, Any] = {"seen": seen}
    exec(code, names)
    assert names["action"].shape == (8,)


@pytest.mark.parametrize("robot", [delta_arm(), position_arm(), tool_arm()], ids=lambda r: r.name)
def test_statistics_are_readable(robot: Any, tmp_path: Path) -> None:
    network = tiny_network([robot])
    out = exported(write_checkpoint(network, tmp_path / "p.ckpt"), tmp_path / "out")
    statistics = json.loads((out / "statistics.json").read_text())[robot.name]
    n = network.prior.normalizer
    for kind, groups, slots, buffer in (
        ("state", robot.state, robot.state_slots, n.state_q99[0]),
        ("relative_action", robot.action, robot.action_slots, n.action_q99[0].T),
    ):
        assert list(statistics[kind]) == [group.name for group in groups]
        for group in groups:
            assert statistics[kind][group.name]["unit"] == group.unit
            features = statistics[kind][group.name]["features"]
            found = torch.tensor([value["99 %"] for value in features.values()])
            torch.testing.assert_close(found, buffer[slots(group)])
    if robot.name == "kuka":
        assert list(statistics["state"]["angles"]["features"])[:2] == [
            "sin(joint_1)",
            "cos(joint_1)",
        ]


def test_the_order_of_lerobots_vectors_is_the_datasets(tmp_path: Path) -> None:
    network = tiny_network([arm()])
    root = write_dataset(tmp_path / "set", names=["grip", "j2", "j1"])
    checkpoint = write_checkpoint(network, tmp_path / "p.ckpt")
    out = exported(checkpoint, tmp_path / "out", "--dataset", str(root))
    config = json.loads((out / "config.json").read_text())
    assert config["action_feature_names"] == config["state_feature_names"] == ["grip", "j2", "j1"]


# ---- what stands there already ------------------------------------------------------------


def test_only_an_export_is_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    exported(checkpoint, out)  # an empty folder may be replaced
    exported(checkpoint, out, "--execute_steps", "3")
    assert Policy.load(out).execute_steps == 3
    (out / "notes.txt").write_text("mine")
    assert "files that are no export (notes.txt)" in refused(capsys, checkpoint, out)
    assert (out / "notes.txt").exists()
    exported(checkpoint, out, "--overwrite", "true")
    assert not (out / "notes.txt").exists()
    (out / "config.json").write_text("{}")
    assert "files that are no export" in refused(capsys, checkpoint, out)
    assert "is a file" in refused(capsys, checkpoint, checkpoint)
    run = tmp_path / "run"
    assert "holds the checkpoint" in refused(capsys, checkpoint, run, "--overwrite", "true")
    assert checkpoint.exists()


def test_an_interrupted_export_leaves_the_old_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(checkpoint, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(policy_folder, "save_weights", full)
    with pytest.raises(OSError, match="no space"):
        exported(checkpoint, out, "--execute_steps", "2")
    with pytest.raises(OSError, match="no space"):
        exported(checkpoint, tmp_path / "other")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["out", "run"]


# ---- refusals -----------------------------------------------------------------------------


def test_bad_input_is_refused_in_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "does not exist" in refused(capsys, tmp_path / "none.ckpt", out)
    both = write_checkpoint(tiny_network([delta_arm(), position_arm()]), tmp_path / "both.ckpt")
    assert "several robots, ['panda', 'kuka']" in refused(capsys, both, out)
    assert "no embodiment 'ur5'" in refused(capsys, both, out, "--embodiment", "ur5")
    assert "execute_steps is 99" in refused(capsys, checkpoint, out, "--execute_steps", "99")
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert "no results.json of" in refused(capsys, checkpoint, out, "--evaluation", str(bad))
    unfitted: PolicyNetwork = tiny_network()
    unfitted.prior.normalizer.fitted_E.fill_(False)
    empty = write_checkpoint(unfitted, tmp_path / "empty.ckpt")
    assert "no normalisation statistics" in refused(capsys, empty, out)
    root = write_dataset(tmp_path / "set", cameras={})
    message = refused(capsys, checkpoint, out, "--dataset", str(root))
    assert "state vector lacks ['joint_1'" in message
    assert not out.exists()


def test_a_poisoned_checkpoint_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "proof"), "w")

    torch.save({"state_dict": {}, "vla": Payload()}, tmp_path / "bad.ckpt")
    message = refused(capsys, tmp_path / "bad.ckpt", tmp_path / "out")
    assert "holds more than tensors and plain data" in message
    assert not (tmp_path / "proof").exists()


# ---- the hub ------------------------------------------------------------------------------


def test_push_to_hub_uploads_the_folder(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: list[Any] = []

    class Commit:
        repo_url = "the-address"

    def create(self: HfApi, repo_id: str, **more: Any) -> None:
        made.append((repo_id, more))

    def upload(self: HfApi, **options: Any) -> Commit:
        made.append((options["repo_id"], sorted(p.name for p in options["folder_path"].iterdir())))
        return Commit()

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    out = tmp_path / "out"
    exported(checkpoint, out, "--push_to_hub", "lab/arm", "--private", "true")
    assert made == [
        ("lab/arm", {"private": True, "exist_ok": True}),
        ("lab/arm", sorted(FILES)),
    ]
    assert "the-address" in capsys.readouterr().out
    assert 'Policy.load(snapshot_download("lab/arm"))' in (out / "README.md").read_text()

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectError("no route")

    monkeypatch.setattr(HfApi, "create_repo", offline)
    message = refused(capsys, checkpoint, out, "--push_to_hub", "lab/arm")
    assert "'lab/arm' was not uploaded (no route)" in message
    assert Policy.load(out).robot.name == "panda"


@pytest.mark.slow
def test_onnx_graphs_need_an_instruction(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    size = ["--onnx_image_size", "[32, 32]"]
    assert "give it as --task" in refused(capsys, checkpoint, tmp_path / "out", *size)
    out = exported(checkpoint, tmp_path / "out", *size, "--task", "reach")
    assert {path.name for path in out.iterdir()} == FILES | GRAPHS
    exported(checkpoint, out)  # an export may be replaced, with its graphs
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize(
    "environments",
    [5, {"a": 1}, [None], [3], [{"episodes": 3}], [{"success_rate": "much"}], [{"env_id": 1}]],
)
def test_foreign_results_beside_a_checkpoint_are_refused(
    environments: Any, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good,) = json.loads(results(7, 0.5))["environments"]
    if isinstance(environments, list) and isinstance(environments[0], dict):
        environments = [good | environments[0]]
    place = tmp_path / "run/rollouts/step7"
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps({"step": 7, "environments": environments}))
    said = refused(capsys, checkpoint, tmp_path / "out")
    assert "results.json is no results.json of RolloutEvaluation" in said
